//! Numbers made coarser: the multiple of the bucket at or below them. What has none in its type becomes NULL, and so
//! do NaN and the infinities.

use exeat_wire::Format;

/// Floats of this magnitude and above have neighbours too far apart to be counted in whole numbers.
const FLOAT_WHOLE_MAX: f64 = 1e15;

/// numeric in binary: digits to this base, and the signs.
const NUMERIC_BASE: u16 = 10_000;
const NUMERIC_POSITIVE: u16 = 0;
const NUMERIC_NEGATIVE: u16 = 0x4000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NumberKin {
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    Numeric,
}

pub(super) fn generalize(kin: NumberKin, bucket: u64, format: Format, value: &[u8], out: &mut Vec<u8>) -> Option<()> {
    match kin {
        NumberKin::Int2 | NumberKin::Int4 | NumberKin::Int8 => integer(kin, bucket, format, value, out),
        NumberKin::Float4 | NumberKin::Float8 => float(kin, bucket, format, value, out),
        NumberKin::Numeric => numeric(bucket, format, value, out),
    }
}

fn integer(kin: NumberKin, bucket: u64, format: Format, value: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let number: i64 = match (format, kin) {
        (Format::Text, _) => std::str::from_utf8(value).ok()?.parse().ok()?,
        (Format::Binary, NumberKin::Int2) => i16::from_be_bytes(value.try_into().ok()?).into(),
        (Format::Binary, NumberKin::Int4) => i32::from_be_bytes(value.try_into().ok()?).into(),
        (Format::Binary, _) => i64::from_be_bytes(value.try_into().ok()?),
    };
    let below = number.checked_sub(number.rem_euclid(i64::try_from(bucket).ok()?))?;
    let bytes: &[u8] = match kin {
        NumberKin::Int2 => &i16::try_from(below).ok()?.to_be_bytes(),
        NumberKin::Int4 => &i32::try_from(below).ok()?.to_be_bytes(),
        _ => &below.to_be_bytes(),
    };
    match format {
        Format::Text => out.extend_from_slice(below.to_string().as_bytes()),
        Format::Binary => out.extend_from_slice(bytes),
    }
    Some(())
}

fn float(kin: NumberKin, bucket: u64, format: Format, value: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let number: f64 = match (format, kin) {
        (Format::Text, _) => std::str::from_utf8(value).ok()?.parse().ok()?,
        (Format::Binary, NumberKin::Float4) => f32::from_be_bytes(value.try_into().ok()?).into(),
        (Format::Binary, _) => f64::from_be_bytes(value.try_into().ok()?),
    };
    if !number.is_finite() || number.abs() >= FLOAT_WHOLE_MAX {
        return None;
    }
    let whole = number.floor();
    // Both are whole and small enough for the remainder to be exact.
    let below = whole - whole.rem_euclid(bucket as f64);
    let text = below.to_string();
    match (format, kin) {
        (Format::Text, _) => out.extend_from_slice(text.as_bytes()),
        // As the server would read the text: rounded to what the type can say.
        (Format::Binary, NumberKin::Float4) => out.extend_from_slice(&text.parse::<f32>().ok()?.to_be_bytes()),
        (Format::Binary, _) => out.extend_from_slice(&below.to_be_bytes()),
    }
    Some(())
}

/// A number of any size: its sign, the decimal digits before the point (most significant first, no zeros in front),
/// and whether anything stands behind it.
struct Decimal {
    negative: bool,
    digits: Vec<u8>,
    fraction: bool,
}

impl Decimal {
    fn of_text(value: &[u8]) -> Option<Self> {
        let (negative, unsigned) = match value.strip_prefix(b"-") {
            Some(unsigned) => (true, unsigned),
            None => (false, value),
        };
        let point = memchr::memchr(b'.', unsigned).unwrap_or(unsigned.len());
        let (whole, rest) = unsigned.split_at_checked(point)?;
        let fraction = rest.get(1..).unwrap_or_default();
        if whole.is_empty() || !whole.iter().chain(fraction).all(u8::is_ascii_digit) {
            return None;
        }
        let digits = whole.iter().skip_while(|digit| **digit == b'0').map(|digit| digit - b'0').collect();
        Some(Self { negative, digits, fraction: fraction.iter().any(|digit| *digit != b'0') })
    }

    fn of_binary(value: &[u8]) -> Option<Self> {
        let (header, groups) = value.split_first_chunk::<8>()?;
        let [count, weight, sign, _] = header.as_chunks::<2>().0 else { return None };
        let weight = i16::from_be_bytes(*weight);
        let negative = match u16::from_be_bytes(*sign) {
            NUMERIC_POSITIVE => false,
            NUMERIC_NEGATIVE => true,
            _ => return None,
        };
        let (groups, rest) = groups.as_chunks::<2>();
        if groups.len() != usize::from(u16::from_be_bytes(*count)) || !rest.is_empty() {
            return None;
        }
        let groups: Vec<u16> = groups.iter().map(|group| u16::from_be_bytes(*group)).collect();
        if groups.iter().any(|group| *group >= NUMERIC_BASE) {
            return None;
        }
        let whole = usize::try_from(i32::from(weight) + 1).unwrap_or(0);
        let mut digits = Vec::with_capacity(whole.saturating_mul(4));
        for index in 0..whole {
            let group = groups.get(index).copied().unwrap_or(0);
            let parts = [group / 1000, group / 100 % 10, group / 10 % 10, group % 10];
            digits.extend(parts.iter().filter_map(|digit| u8::try_from(*digit).ok()));
        }
        let zeros = digits.iter().take_while(|digit| **digit == 0).count();
        digits.drain(..zeros);
        Some(Self { negative, digits, fraction: groups.iter().skip(whole).any(|group| *group != 0) })
    }

    /// The multiple of `bucket` at or below it.
    fn below(mut self, bucket: u64) -> Self {
        // `bucket` is at most 10^12: ten times a remainder fits.
        let step = |rest: u64, digit: &u8| rest.saturating_mul(10).saturating_add(u64::from(*digit)) % bucket;
        let rest = self.digits.iter().fold(0, step);
        self.subtract(rest);
        if self.negative && (rest != 0 || self.fraction) {
            self.add(bucket);
        }
        self.fraction = false;
        let zeros = self.digits.iter().take_while(|digit| **digit == 0).count();
        self.digits.drain(..zeros);
        self.negative &= !self.digits.is_empty();
        self
    }

    /// `rest` is not above it.
    fn subtract(&mut self, mut rest: u64) {
        let mut borrowed = 0;
        for digit in self.digits.iter_mut().rev() {
            let taken = u8::try_from(rest % 10).unwrap_or(0) + borrowed;
            rest /= 10;
            borrowed = u8::from(*digit < taken);
            *digit = *digit + 10 * borrowed - taken;
        }
    }

    fn add(&mut self, more: u64) {
        let mut carried = more;
        for digit in self.digits.iter_mut().rev() {
            let sum = u64::from(*digit) + carried;
            *digit = u8::try_from(sum % 10).unwrap_or(0);
            carried = sum / 10;
        }
        let mut front = Vec::new();
        while carried > 0 {
            front.push(u8::try_from(carried % 10).unwrap_or(0));
            carried /= 10;
        }
        self.digits.splice(..0, front.into_iter().rev());
    }

    fn write_text(&self, out: &mut Vec<u8>) {
        if self.negative {
            out.push(b'-');
        }
        match self.digits.as_slice() {
            [] => out.push(b'0'),
            digits => out.extend(digits.iter().map(|digit| digit + b'0')),
        }
    }

    fn write_binary(&self, out: &mut Vec<u8>) -> Option<()> {
        // Groups of four are counted from the point.
        let groups: Vec<u16> = self
            .digits
            .rchunks(4)
            .rev()
            .map(|group| group.iter().fold(0, |sum: u16, digit| sum * 10 + u16::from(*digit)))
            .collect();
        let kept = groups.len() - groups.iter().rev().take_while(|group| **group == 0).count();
        let weight = i16::try_from(groups.len()).ok()?.saturating_sub(1).max(0);
        let sign = if self.negative { NUMERIC_NEGATIVE } else { NUMERIC_POSITIVE };
        out.extend_from_slice(&u16::try_from(kept).ok()?.to_be_bytes());
        out.extend_from_slice(&weight.to_be_bytes());
        out.extend_from_slice(&sign.to_be_bytes());
        out.extend_from_slice(&[0, 0]); // no digits behind the point are shown
        out.extend(groups.iter().take(kept).flat_map(|group| group.to_be_bytes()));
        Some(())
    }
}

fn numeric(bucket: u64, format: Format, value: &[u8], out: &mut Vec<u8>) -> Option<()> {
    match format {
        Format::Text => {
            Decimal::of_text(value)?.below(bucket).write_text(out);
            Some(())
        }
        Format::Binary => Decimal::of_binary(value)?.below(bucket).write_binary(out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(kin: NumberKin, bucket: u64, value: &str) -> Option<String> {
        let mut out = Vec::new();
        generalize(kin, bucket, Format::Text, value.as_bytes(), &mut out)?;
        Some(String::from_utf8(out).unwrap())
    }

    fn binary(kin: NumberKin, bucket: u64, value: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        generalize(kin, bucket, Format::Binary, value, &mut out).map(|()| out)
    }

    #[test]
    fn numbers_become_the_multiple_at_or_below_them() {
        use NumberKin::{Float4, Float8, Int2, Int4, Int8, Numeric};
        for (kin, bucket, value, expected) in [
            (Int4, 1000, "52345", Some("52000")),
            (Int4, 1000, "-1", Some("-1000")),
            (Int4, 7, "0", Some("0")),
            (Int2, 1000, "-32768", None),
            (Int2, 1000, "32767", Some("32000")),
            (Int8, 10, "-9223372036854775808", None),
            (Int8, 10, "9223372036854775807", Some("9223372036854775800")),
            (Int4, 10, "x", None),
            (Float8, 10, "25.5", Some("20")),
            (Float8, 10, "-0.5", Some("-10")),
            (Float8, 10, "-0", Some("0")),
            (Float8, 10, "1e+300", None),
            (Float8, 10, "NaN", None),
            (Float4, 10, "Infinity", None),
            (Numeric, 1000, "52345.67", Some("52000")),
            (Numeric, 1000, "-52345.67", Some("-53000")),
            (Numeric, 1000, "-52000", Some("-52000")),
            (Numeric, 1000, "-52000.001", Some("-53000")),
            (Numeric, 1000, "-999", Some("-1000")),
            (Numeric, 1000, "999.99", Some("0")),
            (Numeric, 1000, "-0.001", Some("-1000")),
            (Numeric, 1000, "0.00", Some("0")),
            (Numeric, 7, "100000000000000000000000000000000", Some("99999999999999999999999999999998")),
            (Numeric, 10, "NaN", None),
            (Numeric, 10, "-Infinity", None),
        ] {
            assert_eq!(text(kin, bucket, value).as_deref(), expected, "{kin:?} {value}");
        }
    }

    #[test]
    fn binary_numbers_are_the_same_numbers() {
        assert_eq!(binary(NumberKin::Int4, 1000, &(-1_i32).to_be_bytes()).unwrap(), (-1000_i32).to_be_bytes());
        assert_eq!(binary(NumberKin::Int2, 1000, &i16::MIN.to_be_bytes()), None);
        assert_eq!(binary(NumberKin::Float4, 10, &25.5_f32.to_be_bytes()).unwrap(), 20_f32.to_be_bytes());
        assert_eq!(binary(NumberKin::Float8, 10, &f64::NAN.to_be_bytes()), None);
        // 52345.67: groups 5, 2345, 6700; weight 1; two digits shown behind the point.
        let numeric = [0, 3, 0, 1, 0, 0, 0, 2, 0, 5, 0x09, 0x29, 0x1a, 0x2c];
        assert_eq!(binary(NumberKin::Numeric, 1000, &numeric).unwrap(), [0, 2, 0, 1, 0, 0, 0, 0, 0, 5, 0x07, 0xd0]);
        assert_eq!(binary(NumberKin::Numeric, 100_000, &numeric).unwrap(), [0, 0, 0, 0, 0, 0, 0, 0]);
        for (broken, why) in [
            (&[0, 1, 0, 0, 0, 0, 0, 0, 0x27, 0x10][..], "a digit as large as the base"),
            (&[0, 2, 0, 0, 0, 0, 0, 0, 0, 1], "fewer groups than announced"),
            (&[0, 0, 0, 0, 0xc0, 0, 0, 0], "NaN"),
            (&[0, 0], "no header"),
        ] {
            assert_eq!(binary(NumberKin::Numeric, 10, broken), None, "{why}");
        }
    }
}
