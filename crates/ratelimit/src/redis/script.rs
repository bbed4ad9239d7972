//! GCRA at the server: see [`super::units`] for its arithmetic.
//!
//! A key holds its theoretical arrival time as three numbers, `MICROS PART P`, and lives until then:
//! what lies in the past is worth as much as a fresh key. One key in each call, so that a call never
//! crosses the slots of a cluster.

use overdrive_core::Deadline;
use overdrive_remote::redis::{Script, ScriptInvocation};
use overdrive_remote::{Remote, RemoteError};

use crate::redis::units::{Point, Units};

/// The state of a key for the script, with `now` of the server. An arrival time beyond a full burst
/// is cut: it comes of a clock that went back or of an earlier quota. That only forgets what could
/// not be waited for.
macro_rules! read {
    () => {
        r"
local p, b, bf = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local a, f = now, 0
local held = redis.call('GET', KEYS[1])
if held then
    local ha, hf, hp = string.match(held, '^(%d+) (%d+) (%d+)$')
    if not ha then return redis.error_reply('WRONGTYPE the key holds no limit') end
    ha, hf = tonumber(ha), tonumber(hf)
    if tonumber(hp) ~= p and hf > 0 then ha, hf = ha + 1, 0 end
    if ha >= now then a, f = ha, hf end
end
if a > now + b or (a == now + b and f > bf) then a, f = now + b, bf end
"
    };
}

/// Behind [`read!`].
macro_rules! write {
    () => {
        r"
    local state = string.format('%.0f %.0f %.0f', a, f, p)
    redis.call('SET', KEYS[1], state, 'PX', string.format('%.0f', math.floor((a - now) / 1000) + 2))
"
    };
}

/// Takes as many tokens as fit of a first size, or else of each of the sizes that follow.
/// `ARGV`: p, the burst in two parts, and for each size n and its cost in two parts.
const TAKE: &str = concat!(
    read!(),
    r"
local got = 0
for i = 4, #ARGV, 3 do
    local n, ca, cf = tonumber(ARGV[i]), tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
    ca, cf = a + ca, f + cf
    if cf >= p then ca, cf = ca + 1, cf - p end
    if ca < now + b or (ca == now + b and cf <= bf) then
        got, a, f = got + n, ca, cf
        if i == 4 then break end
    end
end
if got > 0 then",
    write!(),
    r"end
return {got, a, f, now}"
);

/// Gives tokens back. `ARGV`: p, the burst in two parts, and the cost in two parts.
const REFUND: &str = concat!(
    read!(),
    r"
a, f = a - tonumber(ARGV[4]), f - tonumber(ARGV[5])
if f < 0 then a, f = a - 1, f + p end
if a < now or (a == now and f == 0) then
    redis.call('DEL', KEYS[1])
    a, f = now, 0
else",
    write!(),
    r"end
return {0, a, f, now}"
);

/// What the server says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    /// The tokens taken.
    pub(crate) got: u64,
    pub(crate) arrival: Point,
    /// The server's time in microseconds.
    pub(crate) now: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Scripts {
    take: Script,
    refund: Script,
}

impl Scripts {
    pub(crate) fn new() -> Self {
        Self {
            take: Script::new(TAKE),
            refund: Script::new(REFUND),
        }
    }

    /// Takes `n` tokens or none. With `parts`, as many as there are, `n` at most.
    pub(crate) async fn take(
        &self,
        remote: &Remote,
        units: &Units,
        key: &[u8],
        n: u64,
        parts: bool,
        deadline: Deadline,
    ) -> Result<Answer, RemoteError> {
        let mut call = prepared(&self.take, units, key);
        let mut size = |n| {
            let (micros, part) = units.span_of(n);
            call.arg(n).arg(micros).arg(part);
        };
        if n > 0 {
            size(n);
        }
        // Every smaller number is a sum of these.
        let mut part = if parts && n > 1 {
            1 << (n - 1).ilog2()
        } else {
            0
        };
        while part > 0 {
            size(part);
            part /= 2;
        }
        // Not idempotent: sent once.
        let reply = remote.query::<(u64, u64, u64, u64)>(&call, deadline);
        reply.await.map(answer)
    }

    pub(crate) async fn refund(
        &self,
        remote: &Remote,
        units: &Units,
        key: &[u8],
        n: u64,
        deadline: Deadline,
    ) -> Result<Answer, RemoteError> {
        let mut call = prepared(&self.refund, units, key);
        let (micros, part) = units.span_of(n);
        call.arg(micros).arg(part);
        let reply = remote.query::<(u64, u64, u64, u64)>(&call, deadline);
        reply.await.map(answer)
    }
}

fn prepared<'s>(script: &'s Script, units: &Units, key: &[u8]) -> ScriptInvocation<'s> {
    let mut call = script.prepare_invoke();
    let (micros, part) = units.span_of(units.burst);
    call.key(key).arg(units.p).arg(micros).arg(part);
    call
}

fn answer((got, micros, part, now): (u64, u64, u64, u64)) -> Answer {
    Answer {
        got,
        arrival: (micros, part),
        now,
    }
}
