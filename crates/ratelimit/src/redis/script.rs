//! GCRA at the server: see [`super::units`] for its arithmetic.
//!
//! A key holds its theoretical arrival time as three doubles, `MICROS PART P`, and lives until then:
//! what lies in the past is worth as much as a fresh key. One key in each call, so that a call never
//! crosses the slots of a cluster.
//!
//! All numbers go over as doubles, little-endian, in one string each way: at the server, the time
//! of a call is mostly that of reading and writing numbers as text.

use overdrive_core::Deadline;
use overdrive_remote::redis::{
    Cmd, ErrorKind, FromRedisValue, ParsingError, Script, ServerErrorKind, Value,
};
use overdrive_remote::{Remote, RemoteError};

use crate::redis::units::{Point, Units};

/// The state of a key for the script, with `now` of the server. An arrival time beyond a full burst
/// is cut: it comes of a clock that went back or of an earlier quota. That only forgets what could
/// not be waited for.
macro_rules! read {
    () => {
        r"
local call, pack, unpack = redis.call, struct.pack, struct.unpack
local key, arg = KEYS[1], ARGV[1]
local p, b, bf, at = unpack('<ddd', arg)
local t = call('TIME')
local now = t[1] * 1000000 + t[2]
local a, f = now, 0
local held = call('GET', key)
if held then
    if #held ~= 24 then return redis.error_reply('WRONGTYPE the key holds no limit') end
    local ha, hf, hp = unpack('<ddd', held)
    if hp ~= p and hf > 0 then ha, hf = ha + 1, 0 end
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
    call('SET', key, pack('<ddd', a, f, p), 'PX', math.floor((a - now) / 1000) + 2)
"
    };
}

/// Takes as many tokens as fit of a first size, or else of each of the sizes that follow.
/// `ARGV`: p, the burst in two parts, and for each size n and its cost in two parts.
const TAKE: &str = concat!(
    read!(),
    r"
local got, first = 0, true
while at < #arg do
    local n, ca, cf
    n, ca, cf, at = unpack('<ddd', arg, at)
    ca, cf = a + ca, f + cf
    if cf >= p then ca, cf = ca + 1, cf - p end
    if ca < now + b or (ca == now + b and cf <= bf) then
        got, a, f = got + n, ca, cf
        if first then break end
    end
    first = false
end
if got > 0 then",
    write!(),
    r"end
return pack('<dddd', got, a, f, now)"
);

/// Gives tokens back. `ARGV`: p, the burst in two parts, and the cost in two parts.
const REFUND: &str = concat!(
    read!(),
    r"
local ca, cf = unpack('<dd', arg, at)
a, f = a - ca, f - cf
if f < 0 then a, f = a - 1, f + p end
if a < now or (a == now and f == 0) then
    call('DEL', key)
    a, f = now, 0
else",
    write!(),
    r"end
return pack('<dddd', 0, a, f, now)"
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

impl FromRedisValue for Answer {
    fn from_redis_value(value: Value) -> Result<Self, ParsingError> {
        let Value::BulkString(bytes) = value else {
            return Err("not a string".to_owned().into());
        };
        if bytes.len() != 32 {
            return Err("not four numbers".to_owned().into());
        }
        let mut numbers = bytes.chunks_exact(8).map(|number| {
            let number = number.try_into().map(f64::from_le_bytes);
            number.map_or(0, |number| number as u64)
        });
        let mut next = || numbers.next().unwrap_or(0);
        Ok(Self {
            got: next(),
            arrival: (next(), next()),
            now: next(),
        })
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Scripts {
    take: Source,
    refund: Source,
}

#[derive(Clone, Debug)]
struct Source {
    code: &'static str,
    hash: String,
}

impl Source {
    fn new(code: &'static str) -> Self {
        let hash = Script::new(code).get_hash().to_owned();
        Self { code, hash }
    }

    fn command(name: &str, script: &str, key: &[u8], numbers: &[u8]) -> Cmd {
        let mut command = Cmd::with_capacity(5, 80 + key.len() + numbers.len());
        command.arg(name).arg(script).arg(1);
        command.arg(key).arg(numbers);
        command
    }

    /// Not idempotent: carried out once.
    async fn run(
        &self,
        remote: &Remote,
        key: &[u8],
        numbers: &Numbers,
        deadline: Deadline,
    ) -> Result<Answer, RemoteError> {
        let known = Self::command("EVALSHA", &self.hash, key, &numbers.0);
        match remote.query(&known, deadline).await {
            // Nothing has been carried out.
            Err(RemoteError::Server(error)) if error.kind() == NO_SCRIPT => {
                let whole = Self::command("EVAL", self.code, key, &numbers.0);
                remote.query(&whole, deadline).await
            }
            answer => answer,
        }
    }
}

const NO_SCRIPT: ErrorKind = ErrorKind::Server(ServerErrorKind::NoScript);

/// As the script takes them.
struct Numbers(Vec<u8>);

impl Numbers {
    /// What each script begins with, and room for that many sizes.
    fn of(units: &Units, sizes: usize) -> Self {
        let mut numbers = Self(Vec::with_capacity(24 * (1 + sizes)));
        numbers.push(units.p);
        numbers.push_span(units.span_of(units.burst));
        numbers
    }

    /// Below 2^53.
    fn push(&mut self, number: u64) {
        self.0.extend_from_slice(&(number as f64).to_le_bytes());
    }

    fn push_span(&mut self, (micros, part): Point) {
        self.push(micros);
        self.push(part);
    }
}

impl Scripts {
    pub(crate) fn new() -> Self {
        Self {
            take: Source::new(TAKE),
            refund: Source::new(REFUND),
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
        // Every smaller number is a sum of these.
        let mut part = if parts && n > 1 {
            1 << (n - 1).ilog2()
        } else {
            0_u64
        };
        let sizes = 65 - part.leading_zeros() as usize;
        let mut numbers = Numbers::of(units, sizes);
        let mut size = |n| {
            numbers.push(n);
            numbers.push_span(units.span_of(n));
        };
        if n > 0 {
            size(n);
        }
        while part > 0 {
            size(part);
            part /= 2;
        }
        self.take.run(remote, key, &numbers, deadline).await
    }

    pub(crate) async fn refund(
        &self,
        remote: &Remote,
        units: &Units,
        key: &[u8],
        n: u64,
        deadline: Deadline,
    ) -> Result<Answer, RemoteError> {
        let mut numbers = Numbers::of(units, 1);
        numbers.push_span(units.span_of(n));
        self.refund.run(remote, key, &numbers, deadline).await
    }
}
