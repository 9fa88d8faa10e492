//! Formats the current time, cached in each thread because most requests ask for the same text.

use std::cell::RefCell;
use std::time::{SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::macros::format_description;

use crate::event::Stamp;

/// Runs `use_stamp` with the current time, which is formatted once per millisecond in each thread.
pub fn with_stamp<T>(use_stamp: impl FnOnce(&Stamp) -> T) -> T {
    thread_local!(static STAMP: RefCell<Option<(i64, Stamp)>> = const { RefCell::new(None) });
    let millis = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_millis() as i64);
    STAMP.with_borrow_mut(|cached| {
        if cached.as_ref().is_none_or(|(of, _)| *of != millis) {
            *cached = Some((millis, Stamp::from_unix_millis(millis)));
        }
        let (_, stamp) = cached.as_ref().expect("just set");
        use_stamp(stamp)
    })
}

/// The current time as an IMF-fixdate, formatted once per second.
#[derive(Debug, Default)]
pub struct Date {
    second: u64,
    text: String,
}

impl Date {
    /// Makes it the present, and returns it.
    pub fn refresh(&mut self) -> &str {
        let now = SystemTime::now();
        let second = now.duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs());
        if self.second != second {
            let format = format_description!(
                "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
            );
            self.text = OffsetDateTime::from(now).format(format).unwrap_or_default();
            self.second = second;
        }
        &self.text
    }

    /// What [`Date::refresh`] returned last.
    #[cfg(feature = "edge")]
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// Runs `use_date` with the current date, cached in each thread.
pub fn with_date(use_date: impl FnOnce(&str)) {
    thread_local!(static DATE: RefCell<Date> = RefCell::default());
    DATE.with_borrow_mut(|date| use_date(date.refresh()));
}
