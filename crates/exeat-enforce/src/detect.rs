//! Detectors: data known by how it looks, in text that no label covers. A tripwire: it catches what nobody thought to
//! label, and whoever wants to get past it does, by any function that changes a text. Never what a seal rests on.
//! Each pattern has a validator, so that ordinary numbers and words are left alone; all are linear in the text.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use exeat_policy::Detector;
use memchr::memmem;

/// Longest header of a token that is read.
const JWT_HEADER_BYTES_MAX: usize = 1024;

/// Whether any of the detectors finds what it looks for.
pub fn finds(detectors: &[Detector], text: &str) -> bool {
    detectors.iter().any(|detector| match detector {
        Detector::Card => digit_runs(text).any(|digits| is_card(&digits)),
        Detector::Iban => words(text).any(is_iban),
        Detector::UsSsn => windows_at_digits(text).any(is_us_ssn),
        Detector::Email => has_email(text),
        Detector::Phone => has_phone(text),
        Detector::CloudKey => has_cloud_key(text),
        Detector::Jwt => text.match_indices("eyJ").any(|(at, _)| is_jwt(text.get(at..).unwrap_or_default())),
        Detector::PrivateKey => has_private_key(text),
    })
}

/// Runs of digits with at most one blank or dash between two of them, and within those the runs without any.
fn digit_runs(text: &str) -> impl Iterator<Item = Vec<u8>> + '_ {
    let is_run = |c: char| !(c.is_ascii_digit() || matches!(c, ' ' | '-'));
    text.split(is_run).flat_map(|run| {
        let mut joined = vec![Vec::new()];
        let mut separators = 0;
        for byte in run.bytes() {
            if byte.is_ascii_digit() {
                if separators > 1 {
                    joined.push(Vec::new());
                }
                separators = 0;
                if let Some(last) = joined.last_mut() {
                    last.push(byte - b'0');
                }
            } else {
                separators += 1;
            }
        }
        let plain = run.split([' ', '-']).map(|digits| digits.bytes().map(|byte| byte - b'0').collect());
        joined.into_iter().chain(plain).collect::<Vec<Vec<u8>>>()
    })
}

fn number(digits: &[u8]) -> u32 {
    digits.iter().fold(0, |sum, digit| sum * 10 + u32::from(*digit))
}

/// Who issues cards: how many digits of theirs say so, from which to which number, and how long such cards are.
const ISSUERS: [(usize, u32, u32, std::ops::RangeInclusive<usize>); 16] = [
    (1, 4, 4, 13..=19),
    (2, 51, 55, 16..=16),
    (4, 2221, 2720, 16..=16),
    (2, 34, 34, 15..=15),
    (2, 37, 37, 15..=15),
    (2, 65, 65, 16..=19),
    (3, 644, 649, 16..=19),
    (4, 6011, 6011, 16..=19),
    (2, 36, 36, 14..=19),
    (2, 38, 39, 14..=19),
    (3, 300, 305, 14..=19),
    (4, 3528, 3589, 16..=19),
    (2, 62, 62, 16..=19),
    (2, 50, 50, 12..=19),
    (2, 56, 58, 12..=19),
    (2, 60, 69, 12..=19),
];

fn is_card(digits: &[u8]) -> bool {
    let issued = |(prefix, from, to, lengths): &(usize, u32, u32, std::ops::RangeInclusive<usize>)| {
        let number = digits.get(..*prefix).map(number);
        lengths.contains(&digits.len()) && number.is_some_and(|number| (*from..=*to).contains(&number))
    };
    ISSUERS.iter().any(issued) && luhn(digits)
}

fn luhn(digits: &[u8]) -> bool {
    let doubled = |digit: u8| if digit > 4 { 2 * digit - 9 } else { 2 * digit };
    let value = |(index, digit): (usize, &u8)| u32::from(if index % 2 == 1 { doubled(*digit) } else { *digit });
    digits.iter().rev().enumerate().map(value).sum::<u32>().is_multiple_of(10)
}

/// Lengths of the account numbers of the countries that use them.
#[rustfmt::skip]
const IBAN_LENGTHS: [(&str, usize); 40] = [
    ("AD", 24), ("AE", 23), ("AL", 28), ("AT", 20), ("AZ", 28), ("BA", 20), ("BE", 16), ("BG", 22), ("BH", 22), ("BR", 29),
    ("CH", 21), ("CY", 28), ("CZ", 24), ("DE", 22), ("DK", 18), ("EE", 20), ("ES", 24), ("FI", 18), ("FR", 27), ("GB", 22),
    ("GR", 27), ("HR", 21), ("HU", 28), ("IE", 22), ("IL", 23), ("IS", 26), ("IT", 27), ("LI", 21), ("LT", 20), ("LU", 20),
    ("LV", 21), ("MC", 27), ("MT", 31), ("NL", 18), ("NO", 15), ("PL", 28), ("PT", 25), ("RO", 24), ("SE", 24), ("TR", 26),
];

/// From each place where a word begins.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut before = ' ';
    text.char_indices().filter_map(move |(at, c)| {
        let begins = c.is_ascii_uppercase() && !before.is_alphanumeric();
        before = c;
        if begins { text.get(at..) } else { None }
    })
}

fn is_iban(rest: &str) -> bool {
    let country = rest.get(..2).unwrap_or_default();
    let Some((_, length)) = IBAN_LENGTHS.iter().find(|(known, _)| *known == country) else { return false };
    let letters: Vec<u8> = rest
        .bytes()
        .take(2 * length)
        .take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b' ')
        .filter(|byte| *byte != b' ')
        .take(*length)
        .collect();
    if letters.len() != *length || !letters.iter().skip(2).take(2).all(u8::is_ascii_digit) {
        return false;
    }
    // The first four go to the end, letters count from 10, and the whole leaves 1.
    let (front, back) = letters.split_at_checked(4).unwrap_or_default();
    let left = back.iter().chain(front).try_fold(0, |rest: u32, byte| {
        let value = char::from(*byte).to_digit(36)?;
        Some((rest * if value > 9 { 100 } else { 10 } + value) % 97)
    });
    left == Some(1)
}

/// The eleven bytes from each digit that no digit or dash stands before.
fn windows_at_digits(text: &str) -> impl Iterator<Item = (&[u8], Option<u8>)> {
    let bytes = text.as_bytes();
    let mut before = b' ';
    bytes.iter().enumerate().filter_map(move |(at, byte)| {
        let begins = byte.is_ascii_digit() && !before.is_ascii_digit() && before != b'-';
        before = *byte;
        let window = bytes.get(at..at.saturating_add(11)).filter(|_| begins)?;
        Some((window, bytes.get(at.saturating_add(11)).copied()))
    })
}

fn is_us_ssn((window, next): (&[u8], Option<u8>)) -> bool {
    let [a, b, c, first, d, e, second, f, g, h, i] = window else { return false };
    let digits = [a, b, c, d, e, f, g, h, i].map(|digit| digit.wrapping_sub(b'0'));
    let separated = first == second && matches!(first, b'-' | b' ');
    let ends = next.is_none_or(|next| !next.is_ascii_digit() && next != b'-');
    if !separated || !ends || digits.iter().any(|digit| *digit > 9) {
        return false;
    }
    let [a, b, c, d, e, f, g, h, i] = digits;
    let (area, group, serial) = (number(&[a, b, c]), number(&[d, e]), number(&[f, g, h, i]));
    // Printed on cards in wallets and in forms for decades.
    let is_sample = matches!((area, group, serial), (78, 5, 1120) | (219, 9, 9999));
    !matches!(area, 0 | 666 | 900..) && group != 0 && serial != 0 && !is_sample
}

fn has_email(text: &str) -> bool {
    let bytes = text.as_bytes();
    memchr::memchr_iter(b'@', bytes).any(|at| {
        let (before, rest) = bytes.split_at_checked(at).unwrap_or_default();
        let local = |byte: &&u8| byte.is_ascii_alphanumeric() || b"._%+-".contains(*byte);
        let named = before.iter().rev().take(64).take_while(local).any(u8::is_ascii_alphanumeric);
        let domain = rest.get(1..).unwrap_or_default().iter().take(253);
        let domain: Vec<u8> =
            domain.take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-')).copied().collect();
        let domain = domain.strip_suffix(b".").unwrap_or(&domain);
        let mut labels = domain.rsplit(|byte| *byte == b'.');
        let top = labels.next().is_some_and(|top| top.len() >= 2 && top.iter().all(u8::is_ascii_alphabetic));
        let below = labels.next().is_some_and(|label| !label.is_empty()) && labels.all(|label| !label.is_empty());
        named && top && below
    })
}

/// With the sign that says that a country's number follows: others are any number.
fn has_phone(text: &str) -> bool {
    let bytes = text.as_bytes();
    memchr::memchr_iter(b'+', bytes).any(|at| {
        let (before, rest) = bytes.split_at_checked(at).unwrap_or_default();
        let follows_a_word = before.last().is_some_and(u8::is_ascii_alphanumeric);
        let mut separators = 0;
        let told = rest.iter().skip(1).take(32).take_while(|byte| {
            separators = if byte.is_ascii_digit() { 0 } else { separators + 1 };
            separators < 3 && (byte.is_ascii_digit() || b" -.()".contains(byte))
        });
        let digits: Vec<u8> = told.filter(|byte| byte.is_ascii_digit()).copied().collect();
        !follows_a_word && (8..=15).contains(&digits.len()) && digits.first().is_some_and(|first| *first != b'0')
    })
}

fn has_cloud_key(text: &str) -> bool {
    let aws = ["AKIA", "ASIA"].into_iter().flat_map(|prefix| text.match_indices(prefix)).any(|(at, _)| {
        let (before, rest) = text.split_at_checked(at).unwrap_or_default();
        let is_key = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit();
        let alone = !before.ends_with(|c: char| c.is_ascii_alphanumeric());
        alone && rest.bytes().take(21).take_while(|byte| is_key(*byte)).count() == 20
    });
    let has = |part: &str| memmem::find(text.as_bytes(), part.as_bytes()).is_some();
    let google = has("service_account") && has("private_key");
    let azure = has("AccountKey=") || (has("sig=") && has("sv=") && has("se="));
    aws || google || azure
}

/// Three parts, the first of them a JSON object that names an algorithm.
fn is_jwt(rest: &str) -> bool {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let header: Vec<u8> = rest.bytes().take(JWT_HEADER_BYTES_MAX).take_while(is_part).collect();
    let Some(claims) = rest.get(header.len()..).and_then(|rest| rest.strip_prefix('.')) else { return false };
    let signed = claims.bytes().find(|byte| !is_part(byte)) == Some(b'.')
        && claims.starts_with(|c: char| c.is_ascii_alphanumeric());
    let header = URL_SAFE_NO_PAD.decode(header).ok();
    let header = header.and_then(|header| serde_json::from_slice::<serde_json::Value>(&header).ok());
    signed && header.is_some_and(|header| header.get("alg").is_some())
}

fn has_private_key(text: &str) -> bool {
    text.match_indices("-----BEGIN ").any(|(at, begin)| {
        let rest = text.get(at.saturating_add(begin.len())..).unwrap_or_default();
        let title: Vec<u8> =
            rest.bytes().take(40).take_while(|byte| byte.is_ascii_uppercase() || *byte == b' ').collect();
        title.ends_with(b"PRIVATE KEY") && rest.get(title.len()..).is_some_and(|rest| rest.starts_with("-----"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    type Case<'a> = (Detector, &'a [&'a str], &'a [&'a str]);

    fn check(cases: &[Case<'_>]) {
        for (detector, found, left) in cases {
            for text in *found {
                assert!(finds(&[*detector], text), "{detector:?} misses {text}");
                assert!(finds(Detector::ALL, text));
                assert!(!finds(&[], text));
            }
            for text in *left {
                assert!(!finds(&[*detector], text), "{detector:?} takes {text}");
            }
        }
    }

    #[test]
    fn numbers_and_addresses_are_found_and_the_like_left_alone() {
        check(&[
            (
                Detector::Card,
                &[
                    "4111 1111 1111 1111",
                    "pay 4111111111111111 now",
                    "5500-0000-0000-0004",
                    "378282246310005",
                    "n 1  4111111111111111 7",
                ],
                &[
                    "4111 1111 1111 1112",
                    "1234567890123452",
                    "41111111111111111111",
                    "order 123456",
                    "4111  1111  1111  1111",
                ],
            ),
            (
                Detector::Iban,
                &["DE89 3704 0044 0532 0130 00", "to GB82WEST12345698765432.", "(PL61109010140000071219812874)"],
                &[
                    "DE89 3704 0044 0532 0130 01",
                    "DE89",
                    "XX89370400440532013000",
                    "aDE89370400440532013000",
                    "GB82 WEST",
                ],
            ),
            (
                Detector::UsSsn,
                &["123-45-6789", "ssn: 123 45 6789.", "{\"ssn\":\"123-45-6789\"}"],
                &[
                    "000-12-3456",
                    "666-12-3456",
                    "912-12-3456",
                    "123-00-4567",
                    "123-45-0000",
                    "078-05-1120",
                    "123-45 6789",
                    "1123-45-6789",
                    "123-45-67890",
                    "5-123-45-6789",
                ],
            ),
            (
                Detector::Email,
                &[
                    "anna@example.com",
                    "<a.b+c@mail.example.co.uk>",
                    "{\"to\":\"x_1@e-x.org\"}",
                    "mail anna@example.com.",
                ],
                &["@example.com", "anna@", "anna@example", "anna@example.c", "a @ b.com", "user@10.0.0.1", "x@..com"],
            ),
            (
                Detector::Phone,
                &["+48 22 123 45 67", "tel:+14155552671", "call +1 (415) 555-2671 now"],
                &["+1", "+0123456789", "1+23456789", "+12345678901234567", "22 123 45 67", "+1 - - - 2345678"],
            ),
        ]);
    }

    #[test]
    fn keys_are_found_and_the_like_left_alone() {
        let jwt = format!("{}.{}.sig", URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256"}"#), URL_SAFE_NO_PAD.encode("{}"));
        let no_jwt = format!("{}.{}.sig", URL_SAFE_NO_PAD.encode(r#"{"all":"RS256"}"#), URL_SAFE_NO_PAD.encode("{}"));
        check(&[
            (
                Detector::CloudKey,
                &[
                    "AKIAIOSFODNN7EXAMPLE",
                    "k=ASIAIOSFODNN7EXAMPLE;",
                    "{\"type\":\"service_account\",\"private_key\":\"x\"}",
                    "https://x?sv=1&se=2&sig=3",
                ],
                &[
                    "AKIAIOSFODNN7EXAMPLES",
                    "AKIA",
                    "XAKIAIOSFODNN7EXAMPLE",
                    "AKIAiosfodnn7example",
                    "a service_account",
                ],
            ),
            (
                Detector::Jwt,
                &[&jwt, &format!("Bearer {jwt} ")],
                &["eyJ", "eyJabc.def.ghi", &no_jwt, "eyJhbGciOiJub25lIn0"],
            ),
            (
                Detector::PrivateKey,
                &["-----BEGIN PRIVATE KEY-----\nMII", "x -----BEGIN RSA PRIVATE KEY-----"],
                &["-----BEGIN PUBLIC KEY-----", "-----BEGIN CERTIFICATE-----", "BEGIN PRIVATE KEY"],
            ),
        ]);
    }

    #[test]
    fn texts_of_any_kind_are_read_to_their_end() {
        for text in ["", "ż@ł.pl", "🦀+48 221234567🦀", "@@@@", "+++", "eyJeyJeyJ", "DEDEDE", "-----BEGIN -----BEGIN "]
        {
            let _ = finds(Detector::ALL, text);
        }
        let long = "+1-@eyJ-----BEGIN DE89 12-".repeat(10_000);
        assert!(!finds(Detector::ALL, &long));
    }
}
