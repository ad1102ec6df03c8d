//! Whole messages to choose from, written after the protocol's documentation and not by the crate under test.

/// A statement with this in it is not admitted.
pub const FORBIDDEN: &str = "!";
/// In place of a refused statement. As the gateway's own: not SQL in any version.
pub const POISON: &str = "exeat refused this statement";
pub const COPY_DONE: [u8; 5] = *b"c\0\0\0\x04";
pub const FLUSH: [u8; 5] = *b"H\0\0\0\x04";

pub fn message(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len() + 4).expect("short");
    [&[tag][..], &length.to_be_bytes(), content].concat()
}

pub fn query(sql: &str) -> Vec<u8> {
    message(b'Q', &[sql.as_bytes(), b"\0"].concat())
}

pub fn parse(name: &str, sql: &str) -> Vec<u8> {
    message(b'P', &[name.as_bytes(), b"\0", sql.as_bytes(), b"\0\0\0"].concat())
}

pub fn client(choice: u8) -> Vec<u8> {
    match choice % 24 {
        0 | 1 => query("SELECT 1"),
        2 => query("SELECT secret!"),
        3 => query(""),
        4 | 5 => parse("", "SELECT $1"),
        6 => parse("s", "SELECT secret!"),
        7 => parse("s", "COPY t FROM STDIN"),
        8 | 9 => message(b'B', b"\0\0\0\0\0\0\0\0"),
        10 => message(b'B', b"p\0s\0\0\x01\0\x01\0\x01\0\0\0\x02hi\0\0"),
        11 => message(b'D', b"S\0"),
        12 => message(b'D', b"P\0"),
        13 | 14 => message(b'E', b"\0\0\0\0\0"),
        15 => message(b'E', b"p\0\0\0\0\x02"),
        16 => message(b'C', b"Ss\0"),
        17 | 18 => message(b'S', b""),
        19 => FLUSH.to_vec(),
        20 => message(b'd', b"1\ta\n"),
        21 => COPY_DONE.to_vec(),
        22 => message(b'f', b"no\0"),
        _ => message(b'F', b"\0\0\0\x01\0\0\0\0\0\0"),
    }
}

const TAGS: &[u8] = b"DTCZEN123Insct SAGHWdVRKvF";

/// Any message of a server, whether it belongs there or not. The last is an error that ends the connection.
pub fn server(choice: u8) -> Vec<u8> {
    let tag = TAGS[usize::from(choice) % TAGS.len()];
    match tag {
        b' ' => message(b'Z', b"T"),
        b'F' => message(b'E', b"SFATAL\0VFATAL\0C57P01\0Mgone\0\0"),
        _ => answer(tag),
    }
}

/// A message of this type with ordinary content.
pub fn answer(tag: u8) -> Vec<u8> {
    let content: &[u8] = match tag {
        b'D' => b"\0\x01\0\0\0\x01x",
        b'T' => b"\0\x01c\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0",
        b'C' => b"SELECT 1\0",
        b'Z' => b"I",
        b'E' => b"SERROR\0VERROR\0C42601\0Mno\0\0",
        b'N' => b"SNOTICE\0VNOTICE\0C00000\0Mhm\0\0",
        b't' => b"\0\x01\0\0\0\x17",
        b'S' => b"TimeZone\0UTC\0",
        b'A' => b"\0\0\0\x01ch\0pay\0",
        b'G' | b'H' | b'W' => b"\0\0\x01\0\0",
        b'd' => b"1\n",
        b'V' => b"\xff\xff\xff\xff",
        b'R' => b"\0\0\0\0",
        b'K' => b"\0\0\0\x01\0\0\0\x02",
        b'v' => b"\0\x03\0\0\0\0\0\0",
        _ => b"",
    };
    message(tag, content)
}
