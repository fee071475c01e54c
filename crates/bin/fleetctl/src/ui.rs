//! Everything a person or a program reads. stdout is data, stderr everything else.

pub mod events;
pub mod github;
pub mod out;
pub mod plan;
pub mod style;
pub mod table;

/// Seconds since 1970 as `2026-11-21 10:32:05 UTC` (the civil-from-days algorithm of the proleptic Gregorian calendar).
#[must_use]
pub fn time(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    #[test]
    fn seconds_become_a_date_that_people_read() {
        assert_eq!(super::time(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(super::time(951_827_696), "2000-02-29 12:34:56 UTC");
        assert_eq!(super::time(1_795_257_125), "2026-11-21 10:32:05 UTC");
    }
}
