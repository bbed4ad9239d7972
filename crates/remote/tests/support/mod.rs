//! Settings for tests.

use std::time::Duration;

use overdrive_remote::RedisSettings;

/// No test waits that long, unless it hangs.
pub(crate) const LONG: Duration = Duration::from_secs(30);
/// The limit that a silent server runs into.
pub(crate) const SHORT: Duration = Duration::from_millis(100);

pub(crate) fn settings(url: String) -> RedisSettings {
    let mut settings = RedisSettings::default();
    settings.url = url;
    settings.pool_size = 4;
    settings.min_idle = 1;
    settings.retries = 0;
    settings
}
