//! The Retry-After field (RFC 9110 section 10.2.3).

/// When to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryAfter {
    /// After so many seconds.
    Seconds(u64),
    /// At this time: seconds since 1970 in UTC, without leap seconds.
    UnixTime(u64),
}

impl RetryAfter {
    /// Reads the field: a number, or a date as RFC 9110 section 5.6.7 wants it written. `None` for
    /// anything else.
    ///
    /// ```
    /// use http_connect::wire::RetryAfter;
    ///
    /// assert_eq!(RetryAfter::parse("120"), Some(RetryAfter::Seconds(120)));
    /// let date = RetryAfter::parse("Sun, 06 Nov 1994 08:49:37 GMT");
    /// assert_eq!(date, Some(RetryAfter::UnixTime(784_111_777)));
    /// ```
    pub fn parse(value: &str) -> Option<Self> {
        if value.bytes().all(|b| b.is_ascii_digit()) {
            return value.parse().ok().map(Self::Seconds);
        }
        unix_time(value).map(Self::UnixTime)
    }
}

fn unix_time(date: &str) -> Option<u64> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let (_weekday, rest) = date.split_once(", ")?;
    let mut words = rest.split(' ');
    let mut word = || words.next();
    let day = number(word()?, 1..=31)?;
    let month = word()?;
    let month = MONTHS.iter().position(|name| *name == month)?;
    let year = number(word()?, 1970..=9999)?;
    let mut clock = word()?.split(':');
    let hour = number(clock.next()?, 0..=23)?;
    let minute = number(clock.next()?, 0..=59)?;
    let second = number(clock.next()?, 0..=60)?;
    (clock.next().is_none() && word() == Some("GMT") && word().is_none()).then_some(())?;
    let days = days_since_1970(year, month as u64, day);
    let hours = days.saturating_mul(24).saturating_add(hour);
    let minutes = hours.saturating_mul(60).saturating_add(minute);
    Some(minutes.saturating_mul(60).saturating_add(second))
}

fn number(text: &str, range: core::ops::RangeInclusive<u64>) -> Option<u64> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|number| digits && range.contains(number))
}

/// `month` counts from 0.
#[expect(
    clippy::arithmetic_side_effects,
    reason = "year, month and day are in range"
)]
const fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    // Years that begin in March, so that the leap day is the last one.
    let (year, month) = if month < 2 {
        (year - 1, month + 10)
    } else {
        (year, month - 2)
    };
    let of_years = year * 365 + year / 4 - year / 100 + year / 400;
    let of_months = (month * 153 + 2) / 5;
    // 1 March of year 0 is 719,468 days before 1970.
    of_years + of_months + day - 1 - 719_468
}
