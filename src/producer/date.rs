//! Formats the `Date` header, once per second.

use std::time::SystemTime;

use time::OffsetDateTime;
use time::macros::format_description;

/// The current time as an IMF-fixdate.
#[derive(Debug, Default)]
pub struct Date {
    second: u64,
    text: String,
}

impl Date {
    /// Makes it the present.
    pub fn refresh(&mut self) {
        let now = SystemTime::now();
        let second = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |age| age.as_secs());
        if self.second != second {
            let format = format_description!(
                "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
            );
            self.text = OffsetDateTime::from(now).format(format).unwrap_or_default();
            self.second = second;
        }
    }

    /// What [`Date::refresh`] found.
    pub fn text(&self) -> &str {
        &self.text
    }
}
