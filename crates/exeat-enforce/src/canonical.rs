//! The one form in which a value that a client brings is counted, whatever format it comes in. Two values never have one
//! form. Two spellings of one value may have two where reading them as the server does is not worth its while; then each
//! of them counts. Of dates and timestamps only what means the same under every setting is read at all.

use exeat_sql::{Oid, lookup_takes};
use exeat_wire::Format;

use crate::mask::date::from_civil;

/// Types by their fixed numbers.
const BOOL: Oid = Oid(16);
const BYTEA: Oid = Oid(17);
const BIGINT: Oid = Oid(20);
const SMALLINT: Oid = Oid(21);
const INTEGER: Oid = Oid(23);
const DATE: Oid = Oid(1082);
const TIMESTAMP: Oid = Oid(1114);
const TIMESTAMPTZ: Oid = Oid(1184);
const NUMERIC: Oid = Oid(1700);
const UUID: Oid = Oid(2950);
/// text, varchar, bpchar and name: on the wire the same bytes in both formats.
const STRINGS: [Oid; 4] = [Oid(25), Oid(1043), Oid(1042), Oid(19)];

const DAY_MICROSECONDS: i64 = 86_400_000_000;
const SECOND_MICROSECONDS: i64 = 1_000_000;
/// Longer numbers are counted as they are spelled.
const DIGITS_MAX: usize = 4_096;

/// Are the bytes of such a value the value, whatever it is declared as?
pub(crate) fn is_string(of: Oid) -> bool {
    STRINGS.contains(&of)
}

/// One value for a column of type `of`. `declared`: what the client says it is, `None` if it leaves that to the server.
/// `None`: which value it is cannot be told.
pub(crate) fn value(of: Oid, declared: Option<Oid>, format: Format, value: &[u8]) -> Option<Vec<u8>> {
    if is_string(of) {
        return Some(value.to_vec());
    }
    let known = match format {
        Format::Text => std::str::from_utf8(value).ok().and_then(|text| of_text(of, text)),
        Format::Binary => of_binary(of, declared, value),
    };
    let as_it_is = |mark| {
        let mut form = vec![mark];
        form.extend_from_slice(&declared.unwrap_or(Oid(0)).0.to_le_bytes());
        form.extend_from_slice(value);
        form
    };
    match (known, format) {
        (Some(known), _) => Some(known),
        (None, _) if is_moment(of) => None,
        (None, Format::Text) => Some(as_it_is(b't')),
        (None, Format::Binary) => Some(as_it_is(b'b')),
    }
}

fn is_moment(of: Oid) -> bool {
    matches!(of, DATE | TIMESTAMP | TIMESTAMPTZ)
}

fn marked(mark: u8, value: &[u8]) -> Vec<u8> {
    let mut form = Vec::with_capacity(value.len().saturating_add(1));
    form.push(mark);
    form.extend_from_slice(value);
    form
}

fn of_text(of: Oid, text: &str) -> Option<Vec<u8>> {
    let form = match of {
        BOOL => match text {
            "t" | "true" => vec![1],
            "f" | "false" => vec![0],
            _ => return None,
        },
        BYTEA => hex(text.strip_prefix("\\x")?)?,
        BIGINT | SMALLINT | INTEGER | NUMERIC => decimal(text)?.into_bytes(),
        UUID => {
            let digits: String = text.chars().filter(|letter| *letter != '-').collect();
            hex(&digits).filter(|bytes| bytes.len() == 16)?
        }
        DATE => day(text)?.to_be_bytes().to_vec(),
        TIMESTAMP => moment(text)?.to_be_bytes().to_vec(),
        TIMESTAMPTZ => {
            // The last sign is the offset's, or there is none: the ones in front separate the date.
            let at = text.rfind(['+', '-']).filter(|at| *at > DATE_BYTES)?;
            let (local, offset) = text.split_at_checked(at)?;
            let offset = seconds_of(offset)?.checked_mul(SECOND_MICROSECONDS)?;
            moment(local)?.checked_sub(offset)?.to_be_bytes().to_vec()
        }
        _ => return None,
    };
    Some(marked(b'v', &form))
}

fn of_binary(of: Oid, declared: Option<Oid>, value: &[u8]) -> Option<Vec<u8>> {
    let form = match of {
        // Declared as anything else, or as nothing where the column is a numeric, the bytes may be another number.
        BIGINT | SMALLINT | INTEGER => integer(value)?.to_string().into_bytes(),
        NUMERIC if declared.is_some_and(|declared| declared != NUMERIC) => integer(value)?.to_string().into_bytes(),
        BOOL => match value {
            [byte] => vec![u8::from(*byte != 0)],
            _ => return None,
        },
        BYTEA => value.to_vec(),
        UUID => <[u8; 16]>::try_from(value).ok()?.to_vec(),
        DATE => i64::from(i32::from_be_bytes(value.try_into().ok()?)).to_be_bytes().to_vec(),
        TIMESTAMP | TIMESTAMPTZ => i64::from_be_bytes(value.try_into().ok()?).to_be_bytes().to_vec(),
        _ => return None,
    };
    Some(marked(b'v', &form))
}

fn integer(value: &[u8]) -> Option<i64> {
    match value.len() {
        2 => value.try_into().ok().map(i16::from_be_bytes).map(i64::from),
        4 => value.try_into().ok().map(i32::from_be_bytes).map(i64::from),
        8 => value.try_into().ok().map(i64::from_be_bytes),
        _ => None,
    }
}

/// Without the zeros that say nothing: `-007.50` is `-7.5`.
fn decimal(text: &str) -> Option<String> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let is_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if text.len() > DIGITS_MAX || !is_digits(whole) || !is_digits(fraction) {
        return None;
    }
    let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
    Some(match (whole, fraction) {
        ("", "") => "0".to_owned(),
        ("", fraction) => format!("{sign}0.{fraction}"),
        (whole, "") => format!("{sign}{whole}"),
        (whole, fraction) => format!("{sign}{whole}.{fraction}"),
    })
}

fn hex(digits: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let bytes = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect::<Option<Vec<u8>>>();
    bytes.filter(|_| rest.is_empty())
}

/// `YYYY-MM-DD`.
const DATE_BYTES: usize = 10;

/// Days since the server's epoch. Exactly four digits of a year in front: what else they could be, no setting says.
fn day(text: &str) -> Option<i64> {
    let mut parts = text.split('-');
    let (year, month, day) = (number(parts.next()?, 4)?, number(parts.next()?, 2)?, number(parts.next()?, 2)?);
    if parts.next().is_some() || year == 0 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    Some(from_civil(year, month, day))
}

/// Microseconds since the server's epoch, of `YYYY-MM-DD HH:MM:SS` with up to six digits of a fraction.
fn moment(text: &str) -> Option<i64> {
    let (date, time) = text.split_at_checked(DATE_BYTES)?;
    let time = time.strip_prefix([' ', 'T'])?;
    let (clock, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let micros = number(&format!("{fraction:0<6}"), 6).filter(|_| !fraction.is_empty())?;
    let seconds = clock_seconds(clock, 3)?.checked_mul(SECOND_MICROSECONDS)?;
    day(date)?.checked_mul(DAY_MICROSECONDS)?.checked_add(seconds)?.checked_add(micros)
}

/// `+HH`, `+HH:MM` or `+HH:MM:SS`.
fn seconds_of(offset: &str) -> Option<i64> {
    let (sign, clock) = offset.split_at_checked(1)?;
    let seconds = clock_seconds(clock, 1)?;
    Some(if sign == "-" { -seconds } else { seconds })
}

/// Of two digits each; `parts`: how many there are at least.
fn clock_seconds(clock: &str, parts: usize) -> Option<i64> {
    let found = clock.split(':').map(|part| number(part, 2)).collect::<Option<Vec<i64>>>()?;
    if found.len() < parts || found.len() > 3 {
        return None;
    }
    let units = found.iter().zip([3600, 60, 1]);
    Some(units.map(|(part, unit)| part * unit).sum())
}

fn number(digits: &str, length: usize) -> Option<i64> {
    (digits.len() == length && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// The values of an array, which is not an array of arrays. `of`, `declared`: of its values. NULL is left out where it
/// certainly is one. `None`: they cannot be told.
pub(crate) fn array(of: Oid, declared: Option<Oid>, format: Format, bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    match format {
        Format::Text => {
            let values = array_text(std::str::from_utf8(bytes).ok()?)?;
            // No setting makes a date of that word.
            let counts = |text: &&String| !(is_moment(of) && text.eq_ignore_ascii_case("null"));
            values.iter().filter(counts).map(|text| value(of, declared, format, text.as_bytes())).collect()
        }
        Format::Binary => {
            let (element, values) = array_binary(bytes).filter(|(element, _)| lookup_takes(of, *element))?;
            values.into_iter().flatten().map(|one| value(of, Some(element), format, one)).collect()
        }
    }
}

/// `{a,"b c"}`. NULL is a value: whether it means NULL is a matter of settings.
fn array_text(text: &str) -> Option<Vec<String>> {
    let inside = text.strip_prefix('{')?.strip_suffix('}')?;
    let mut values = Vec::new();
    if inside.trim_matches(' ').is_empty() {
        return Some(values);
    }
    let mut rest = inside;
    loop {
        let (value, after) = element_text(rest.trim_start_matches(' '))?;
        values.push(value);
        match after.trim_start_matches(' ').strip_prefix(',') {
            Some(next) => rest = next,
            None if after.trim_matches(' ').is_empty() => return Some(values),
            None => return None,
        }
    }
}

/// The first value, and what stands behind it.
fn element_text(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(',').unwrap_or(text.len());
        let (value, after) = text.split_at_checked(end)?;
        let value = value.trim_end_matches(' ');
        let plain = |letter: char| !matches!(letter, '{' | '}' | '"' | '\\') && !letter.is_ascii_control();
        return (!value.is_empty() && value.chars().all(plain)).then(|| (value.to_owned(), after));
    };
    let mut value = String::new();
    let mut letters = quoted.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, quoted.split_at_checked(at)?.1.strip_prefix('"')?)),
            '\\' => value.push(letters.next()?.1),
            letter => value.push(letter),
        }
    }
    None
}

/// The type of the values, and each of them.
fn array_binary(bytes: &[u8]) -> Option<(Oid, Vec<Option<&[u8]>>)> {
    let mut rest = bytes;
    let dimensions = word(&mut rest)?;
    let _has_nulls = word(&mut rest)?;
    let element = Oid(u32::from_be_bytes(word(&mut rest)?.to_be_bytes()));
    let mut values = Vec::new();
    if dimensions == 1 {
        let (count, _first_index) = (word(&mut rest)?, word(&mut rest)?);
        for _ in 0..count {
            let length = word(&mut rest)?;
            if length == -1 {
                values.push(None);
                continue;
            }
            let (value, after) = rest.split_at_checked(usize::try_from(length).ok()?)?;
            values.push(Some(value));
            rest = after;
        }
    }
    (dimensions <= 1 && rest.is_empty()).then_some((element, values))
}

fn word(bytes: &mut &[u8]) -> Option<i32> {
    let (word, rest) = bytes.split_first_chunk::<4>()?;
    *bytes = rest;
    Some(i32::from_be_bytes(*word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(of: Oid, format: Format, bytes: &[u8]) -> Option<Vec<u8>> {
        value(of, None, format, bytes)
    }

    fn text(of: Oid, spelled: &str) -> Option<Vec<u8>> {
        form(of, Format::Text, spelled.as_bytes())
    }

    #[test]
    fn one_value_has_one_form_in_text_and_in_binary() {
        let uuid: [u8; 16] = std::array::from_fn(|at| u8::try_from(at).unwrap());
        let day: i32 = 365;
        let moment = i64::from(day) * DAY_MICROSECONDS + 3_600_000_001;
        for (of, spelled, binary) in [
            (SMALLINT, "-7", &(-7_i16).to_be_bytes()[..]),
            (INTEGER, "7", &7_i32.to_be_bytes()),
            (BIGINT, "7", &7_i32.to_be_bytes()),
            (BIGINT, "0007", &7_i64.to_be_bytes()),
            (BOOL, "t", &[1]),
            (BOOL, "false", &[0]),
            (BYTEA, "\\x00fF", &[0, 255]),
            (UUID, "00010203-0405-0607-0809-0a0B0c0d0e0f", &uuid),
            (DATE, "2000-12-31", &day.to_be_bytes()),
            (TIMESTAMP, "2000-12-31 01:00:00.000001", &moment.to_be_bytes()),
            (TIMESTAMP, "2000-12-31T01:00:00.000001", &moment.to_be_bytes()),
            (TIMESTAMPTZ, "2000-12-31 01:00:00.000001+00", &moment.to_be_bytes()),
            (TIMESTAMPTZ, "2000-12-31 02:30:00.000001+01:30", &moment.to_be_bytes()),
            (TIMESTAMPTZ, "2000-12-30 20:00:00.000001-05", &moment.to_be_bytes()),
            (STRINGS[0], "a", b"a"),
        ] {
            let one = text(of, spelled).unwrap();
            assert_eq!(Some(&one), form(of, Format::Binary, binary).as_ref(), "{spelled}");
            assert!(of == STRINGS[0] || one.first() == Some(&b'v'), "{spelled}");
        }
        assert_eq!(value(NUMERIC, Some(INTEGER), Format::Binary, &7_i32.to_be_bytes()), text(NUMERIC, "7.00"));
    }

    #[test]
    fn two_values_never_have_one_form() {
        for (of, one, other) in [
            (NUMERIC, "7", "70"),
            (NUMERIC, "7", "-7"),
            (NUMERIC, "7", "0.7"),
            (NUMERIC, "0.07", "0.7"),
            (NUMERIC, "1e3", "1"),
            (NUMERIC, "nan", "0"),
            (INTEGER, "0x7", "7"),
            (BYTEA, "\\x4142", "AB "),
            (DATE, "2000-12-31", "2001-12-31"),
            (TIMESTAMP, "2000-12-31 01:00:00", "2000-12-31 01:00:00.1"),
            (TIMESTAMP, "2000-12-31 01:00:00.01", "2000-12-31 01:00:00.1"),
            (STRINGS[0], "a", "A"),
            (STRINGS[0], "a", "a "),
        ] {
            assert_ne!(text(of, one).unwrap(), text(of, other).unwrap(), "{one} {other}");
        }
        // The bytes of one are the other's text, or the same bytes mean another number.
        assert_ne!(text(NUMERIC, "\0\0\0\u{7}"), form(NUMERIC, Format::Binary, &7_i32.to_be_bytes()));
        assert_ne!(
            value(NUMERIC, Some(INTEGER), Format::Binary, &7_i32.to_be_bytes()),
            value(NUMERIC, None, Format::Binary, &7_i32.to_be_bytes())
        );
    }

    #[test]
    fn moments_that_depend_on_settings_have_no_form() {
        for (of, spelled) in [
            (DATE, "01/02/2001"),
            (DATE, "01-02-2001"),
            (DATE, "12001-02-03"),
            (DATE, "20010203"),
            (DATE, "2001-02-03 BC"),
            (DATE, "today"),
            (DATE, "infinity"),
            (DATE, " 2001-02-03"),
            (DATE, "2001-02-03 04:05:06"),
            (TIMESTAMP, "2001-02-03 04:05"),
            (TIMESTAMP, "2001-02-03 04:05:06+02"),
            (TIMESTAMP, "2001-02-03 04:05:06.1234567"),
            (TIMESTAMP, "2001-02-03 04:05:06."),
            (TIMESTAMP, "2001-02-03"),
            (TIMESTAMPTZ, "2001-02-03 04:05:06"),
            (TIMESTAMPTZ, "2001-02-03 04:05:06 CET"),
            (TIMESTAMPTZ, "2001-02-03 04:05:06Z"),
            (TIMESTAMPTZ, "2001-02-03"),
        ] {
            assert_eq!(text(of, spelled), None, "{spelled}");
        }
        assert_eq!(form(DATE, Format::Binary, &[0; 8]), None);
        assert_eq!(form(TIMESTAMP, Format::Binary, &[0; 4]), None);
    }

    #[test]
    fn arrays_are_read_value_by_value_or_not_at_all() {
        let read = |of, spelled: &str| array(of, None, Format::Text, spelled.as_bytes());
        let texts = |values: &[&str]| Some(values.iter().map(|value| value.as_bytes().to_vec()).collect::<Vec<_>>());
        let of = STRINGS[0];
        assert_eq!(read(of, "{}"), texts(&[]));
        assert_eq!(read(of, "{a, b c ,\"d,\\\"\\\\}\",\"\",NULL}"), texts(&["a", "b c", "d,\"\\}", "", "NULL"]));
        assert_eq!(read(INTEGER, "{7,07}").unwrap(), vec![text(INTEGER, "7").unwrap(); 2]);
        assert_eq!(read(DATE, "{2001-02-03,null}").unwrap().len(), 1);
        for spelled in
            ["", "a", "{a", "{a}b", "{{a}}", "[1:1]={a}", "{a,}", "{,a}", "{\"a\"b}", "{a\\b}", "{\"a}", "{a\tb}"]
        {
            assert_eq!(read(of, spelled), None, "{spelled}");
        }
        assert_eq!(read(DATE, "{01/02/2001}"), None);
    }

    fn packed(dimensions: i32, element: Oid, values: &[Option<&[u8]>]) -> Vec<u8> {
        let mut bytes = [dimensions, 0, i32::try_from(element.0).unwrap()].map(i32::to_be_bytes).concat();
        let mut word = |number: i32, value: &[u8]| {
            bytes.extend_from_slice(&number.to_be_bytes());
            bytes.extend_from_slice(value);
        };
        if dimensions > 0 {
            word(i32::try_from(values.len()).unwrap(), &[]);
            word(1, &[]);
        }
        for value in values {
            word(value.map_or(-1, |value| i32::try_from(value.len()).unwrap()), value.unwrap_or_default());
        }
        bytes
    }

    #[test]
    fn arrays_in_binary_say_what_they_are_made_of() {
        let seven = 7_i64.to_be_bytes();
        let read = |of, bytes: &[u8]| array(of, None, Format::Binary, bytes);
        assert_eq!(
            read(INTEGER, &packed(1, BIGINT, &[Some(&seven), None])).unwrap(),
            vec![text(INTEGER, "7").unwrap()]
        );
        assert_eq!(read(INTEGER, &packed(0, BIGINT, &[])).unwrap(), Vec::<Vec<u8>>::new());
        assert_eq!(read(INTEGER, &packed(1, NUMERIC, &[Some(&seven)])), None, "the column would become a numeric");
        assert_eq!(read(INTEGER, &packed(2, BIGINT, &[Some(&seven)])), None);
        let whole = packed(1, BIGINT, &[Some(&seven)]);
        for cut in 0..whole.len() {
            assert_eq!(read(INTEGER, &whole[..cut]), None, "{cut}");
        }
        assert_eq!(read(INTEGER, &[whole, vec![0]].concat()), None);
    }
}
