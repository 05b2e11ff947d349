//! The date that a template may ask for, written by the rules of C's `strftime`, and never taken from a clock.

/// The moment that `strftime_now` answers with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Date {
    /// Proleptic Gregorian, 1 to 9999.
    pub year: u16,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
    /// 0 to 23.
    pub hour: u8,
    /// 0 to 59.
    pub minute: u8,
    /// 0 to 59.
    pub second: u8,
}

impl Date {
    /// The date that Llama 3.x's own templates fall back to ("26 Jul 2024"), at midnight: with it, a template that
    /// asks for today and one that does not know the date write the same prompt, today and in ten years.
    pub const FIXED: Self = Self { year: 2024, month: 7, day: 26, hour: 0, minute: 0, second: 0 };

    /// Midnight of a day, if there is such a day.
    pub fn day(year: u16, month: u8, day: u8) -> Option<Self> {
        let date = Self { year, month, day, hour: 0, minute: 0, second: 0 };
        let exists = (1..=9999).contains(&year)
            && (1..=12).contains(&month)
            && day >= 1
            && day <= date.days_in_month(month);
        exists.then_some(date)
    }

    fn is_leap(self) -> bool {
        self.year.is_multiple_of(4) && (!self.year.is_multiple_of(100) || self.year.is_multiple_of(400))
    }

    fn days_in_month(self, month: u8) -> u8 {
        match month {
            4 | 6 | 9 | 11 => 30,
            2 if self.is_leap() => 29,
            2 => 28,
            _ => 31,
        }
    }

    /// From 1.
    fn day_of_year(self) -> u32 {
        (1..self.month).map(|month| u32::from(self.days_in_month(month))).sum::<u32>() + u32::from(self.day)
    }

    /// 0 is Sunday. Days since the Monday 1 January of year 1, by counting leap years.
    fn weekday(self) -> u32 {
        let past = u32::from(self.year).saturating_sub(1);
        (past * 365 + past / 4 - past / 100 + past / 400 + self.day_of_year()) % 7
    }

    /// Writes the date as `pattern` says, in English and the C locale; the error is the directive that is unknown.
    ///
    /// Known: `%a %A %b %B %d %e %F %H %h %I %j %m %M %p %S %T %D %u %w %y %Y %n %t %%`, and glibc's `%-d` forms
    /// without padding.
    pub(super) fn format(self, pattern: &str) -> Result<String, String> {
        let mut out = String::new();
        let mut chars = pattern.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            let mut directive = chars.next();
            let bare = directive == Some('-');
            if bare {
                directive = chars.next();
            }
            let Some(directive) = directive else { return Err("%".to_owned()) };
            let unknown = || format!("%{}{directive}", if bare { "-" } else { "" });
            match self.number(directive) {
                Some((value, _)) if bare => out.push_str(&value.to_string()),
                Some((value, Padding::Zeros(width))) => out.push_str(&format!("{value:0width$}")),
                Some((value, Padding::Space)) => out.push_str(&format!("{value:2}")),
                None if bare => return Err(unknown()),
                None => out.push_str(&self.words(directive).ok_or_else(unknown)?),
            }
        }
        Ok(out)
    }

    fn number(self, directive: char) -> Option<(u32, Padding)> {
        let twelve = match self.hour % 12 {
            0 => 12,
            hour => hour,
        };
        Some(match directive {
            'd' => (u32::from(self.day), Padding::Zeros(2)),
            'e' => (u32::from(self.day), Padding::Space),
            'm' => (u32::from(self.month), Padding::Zeros(2)),
            'y' => (u32::from(self.year % 100), Padding::Zeros(2)),
            // glibc does not pad years.
            'Y' => (u32::from(self.year), Padding::Zeros(1)),
            'H' => (u32::from(self.hour), Padding::Zeros(2)),
            'I' => (u32::from(twelve), Padding::Zeros(2)),
            'M' => (u32::from(self.minute), Padding::Zeros(2)),
            'S' => (u32::from(self.second), Padding::Zeros(2)),
            'j' => (self.day_of_year(), Padding::Zeros(3)),
            'w' => (self.weekday(), Padding::Zeros(1)),
            'u' => (if self.weekday() == 0 { 7 } else { self.weekday() }, Padding::Zeros(1)),
            _ => return None,
        })
    }

    fn words(self, directive: char) -> Option<String> {
        const DAYS: [&str; 7] =
            ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
        const MONTHS: [&str; 12] = [
            "January",
            "February",
            "March",
            "April",
            "May",
            "June",
            "July",
            "August",
            "September",
            "October",
            "November",
            "December",
        ];
        let day = DAYS.get(self.weekday() as usize)?;
        let month = MONTHS.get(usize::from(self.month).checked_sub(1)?)?;
        let short = |name: &str| name.chars().take(3).collect::<String>();
        Some(match directive {
            'a' => short(day),
            'A' => (*day).to_owned(),
            'b' | 'h' => short(month),
            'B' => (*month).to_owned(),
            'p' => if self.hour < 12 { "AM" } else { "PM" }.to_owned(),
            'F' => self.format("%Y-%m-%d").ok()?,
            'T' => self.format("%H:%M:%S").ok()?,
            'D' => self.format("%m/%d/%y").ok()?,
            'n' => "\n".to_owned(),
            't' => "\t".to_owned(),
            '%' => "%".to_owned(),
            _ => return None,
        })
    }
}

enum Padding {
    Zeros(usize),
    Space,
}
