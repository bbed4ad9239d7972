//! `Retry-After` (RFC 9110), and `RateLimit-Policy` and `RateLimit` of the IETF draft
//! "RateLimit header fields for HTTP" (draft-ietf-httpapi-ratelimit-headers-10).

use std::time::Duration;

use http::header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};

use crate::http::limit::{Answer, Outcome};

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// Whole seconds, rounded up, so that nobody comes too early.
pub(crate) fn seconds(duration: Duration) -> u64 {
    let up = u64::from(duration.subsec_nanos() > 0);
    duration.as_secs().saturating_add(up)
}

pub(crate) fn retry_after(headers: &mut HeaderMap, after: Duration) {
    headers.insert(RETRY_AFTER, HeaderValue::from(seconds(after).max(1)));
}

/// The largest integer of RFC 9651: a field with a larger one is ignored as a whole.
const MAX_INTEGER: u64 = 999_999_999_999_999;

/// A burst in the time in which it is earned is the quota of the draft. Several limiters each add
/// their own.
pub(crate) fn rate_limit(headers: &mut HeaderMap, name: &str, outcome: &Outcome) {
    let quota = outcome.quota;
    let earned = quota.period.as_nanos() * u128::from(quota.burst);
    let earned = earned.div_ceil(u128::from(quota.tokens.max(1)) * 1_000_000_000);
    let name = quoted(name);
    let earned = earned.clamp(1, MAX_INTEGER.into());
    let policy = format!("{name};q={};w={earned}", quota.burst.min(MAX_INTEGER));
    let Some(remaining) = outcome.remaining else {
        return append(headers, POLICY, &policy);
    };
    let after = match outcome.answer {
        Answer::Denied(after) => after,
        _ => outcome.reset_after,
    };
    let (remaining, seconds) = (remaining.min(MAX_INTEGER), seconds(after).min(MAX_INTEGER));
    append(headers, POLICY, &policy);
    append(headers, LIMIT, &format!("{name};r={remaining};t={seconds}"));
}

fn append(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.append(name, value);
    }
}

/// A string of RFC 9651, with `?` for what it cannot hold.
fn quoted(name: &str) -> String {
    let mut quoted = String::with_capacity(name.len() + 2);
    quoted.push('"');
    for c in name.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            ' '..='~' => quoted.push(c),
            _ => quoted.push('?'),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quota::Quota;

    #[test]
    fn seconds_are_rounded_up_and_a_policy_is_a_burst_and_its_time() {
        assert_eq!(seconds(Duration::from_nanos(1)), 1);
        assert_eq!(seconds(Duration::MAX), u64::MAX);
        let outcome = Outcome {
            answer: Answer::Denied(Duration::from_millis(30_001)),
            quota: Quota::per_second(10).burst(101),
            remaining: Some(0),
            reset_after: Duration::ZERO,
        };
        let mut headers = HeaderMap::new();
        rate_limit(&mut headers, "per \"client\"", &outcome);
        assert_eq!(headers[POLICY], r#""per \"client\"";q=101;w=11"#);
        assert_eq!(headers[LIMIT], r#""per \"client\"";r=0;t=31"#);
    }
}
