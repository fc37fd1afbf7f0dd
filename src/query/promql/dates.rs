//! Functions of a time: a value in seconds since 1970, read in UTC.

use jiff::{Timestamp, Zoned, tz::TimeZone};

/// What of a time is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DateFunction {
    DayOfMonth,
    DayOfWeek,
    DayOfYear,
    DaysInMonth,
    Hour,
    Minute,
    Month,
    Year,
}

impl DateFunction {
    pub(super) fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "day_of_month" => Self::DayOfMonth,
            "day_of_week" => Self::DayOfWeek,
            "day_of_year" => Self::DayOfYear,
            "days_in_month" => Self::DaysInMonth,
            "hour" => Self::Hour,
            "minute" => Self::Minute,
            "month" => Self::Month,
            "year" => Self::Year,
            _ => return None,
        })
    }

    /// Of this time; NaN where it lies outside of what a calendar has.
    pub(super) fn of(self, seconds: f64) -> f64 {
        if seconds.is_nan() {
            return f64::NAN;
        }
        // A time before 1970 with a fraction is cut towards 1970, as a conversion in Go does it.
        match Timestamp::from_second(seconds as i64) {
            Ok(time) => self.told(&time.to_zoned(TimeZone::UTC)),
            Err(_) => f64::NAN,
        }
    }

    fn told(self, time: &Zoned) -> f64 {
        match self {
            Self::DayOfMonth => f64::from(time.day()),
            Self::DayOfWeek => f64::from(time.weekday().to_sunday_zero_offset()),
            Self::DayOfYear => f64::from(time.day_of_year()),
            Self::DaysInMonth => f64::from(time.days_in_month()),
            Self::Hour => f64::from(time.hour()),
            Self::Minute => f64::from(time.minute()),
            Self::Month => f64::from(time.month()),
            Self::Year => f64::from(time.year()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leap_day_is_told_in_all_ways() {
        use DateFunction::{DayOfMonth, DayOfWeek, DayOfYear, DaysInMonth, Hour, Minute, Month, Year};
        // 2024-02-29T13:37:00Z, a Thursday.
        let all = [DayOfMonth, DayOfWeek, DayOfYear, DaysInMonth, Hour, Minute, Month, Year];
        assert_eq!(all.map(|f| f.of(1_709_213_820.0)), [29.0, 4.0, 60.0, 29.0, 13.0, 37.0, 2.0, 2024.0]);
        assert_eq!(Year.of(-1.5), 1969.0);
        assert!(Year.of(1e300).is_nan() && Year.of(f64::NAN).is_nan());
    }
}
