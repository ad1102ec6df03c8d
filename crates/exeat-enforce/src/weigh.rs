//! How many rows stand in one row that the server sends: one, unless an aggregate made arrays, documents or texts of rows.
//! Then elements count, and where nobody can say what an element is, length does. Never too low for what a value can
//! hold; what is not understood counts by its length. Looks at no cell of a statement that packs nothing.

use exeat_sql::{CatalogSnapshot, Oid, Packing};
use exeat_wire::{DataRow, DecodeError, Format, RowDescription};

use crate::mask::TypeKin;

/// Bytes that count as a row in a value that holds many in an order of its own: a text that an aggregate put together,
/// an element of an array that is itself such a text. Few enough that keys of short columns do not slip through.
pub const PACKED_BYTES_A_ROW: u64 = 8;

/// How to weigh the rows of one answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scale {
    columns: Vec<Weighed>,
}

/// How a column counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weighed {
    /// It has room for one value, the row's own.
    Single,
    /// It has room for one value, of any row.
    Another,
    Array(Format),
    /// `versioned`: a version byte stands before the text.
    Json {
        versioned: bool,
    },
    Length,
    /// One at least; elements, or length where that comes to more: an element may hold many rows.
    ArrayOrLength(Format),
    OneOrLength,
}

impl Scale {
    /// For rows of which each counts as one.
    pub const SINGLE: &'static Self = &Self { columns: Vec::new() };

    pub fn of(
        packing: Packing,
        described: &RowDescription,
        snapshot: &CatalogSnapshot,
        formats: impl Fn(usize) -> Format,
    ) -> Self {
        let columns = match packing {
            Packing::None => return Self::SINGLE.clone(),
            Packing::Once | Packing::Nested => described.fields.iter().enumerate().map(|(index, field)| {
                let name = snapshot.type_name(Oid(field.type_oid));
                column(packing, TypeKin::of(field.type_oid, name), is_array(name), formats(index), field.type_size)
            }),
        };
        Self { columns: columns.collect() }
    }

    /// How many rows it holds of each relation that stands in the statement once.
    pub fn weigh(&self, row: &DataRow) -> Result<u64, DecodeError> {
        if self.columns.is_empty() {
            return Ok(1);
        }
        let mut sum: u64 = 0;
        for (weighed, cell) in self.columns.iter().zip(row.cells()) {
            if let Some(cell) = cell? {
                sum = sum.saturating_add(weighed.count(cell));
            }
        }
        Ok(sum.max(1))
    }
}

/// A value of which no more is known than how long it is.
pub fn by_length(bytes: u64) -> u64 {
    bytes / PACKED_BYTES_A_ROW
}

fn is_array(name: Option<&str>) -> bool {
    // The server's own way of naming the array type of every type.
    name.is_some_and(|name| name.starts_with('_'))
}

fn column(packing: Packing, kin: TypeKin, array: bool, format: Format, type_size: i16) -> Weighed {
    match (packing, kin) {
        (Packing::Nested, _) if type_size > 0 && kin != TypeKin::Name => Weighed::Another,
        (Packing::Nested, _) if array => Weighed::ArrayOrLength(format),
        (Packing::Nested, _) => Weighed::OneOrLength,
        _ if type_size > 0 && kin != TypeKin::Name => Weighed::Single,
        (_, TypeKin::Json) => Weighed::Json { versioned: false },
        (_, TypeKin::Jsonb) => Weighed::Json { versioned: format == Format::Binary },
        _ if array => Weighed::Array(format),
        _ => Weighed::Length,
    }
}

impl Weighed {
    fn count(self, cell: &[u8]) -> u64 {
        match self {
            Self::Single => 0,
            Self::Another => 1,
            Self::Array(format) => elements(format, cell),
            Self::ArrayOrLength(format) => elements(format, cell).max(length(cell)).max(1),
            Self::OneOrLength => length(cell).max(1),
            Self::Json { versioned: true } => cell.get(1..).map_or(0, json_elements),
            Self::Json { versioned: false } => json_elements(cell),
            Self::Length => length(cell),
        }
    }
}

fn length(cell: &[u8]) -> u64 {
    by_length(u64::try_from(cell.len()).unwrap_or(u64::MAX))
}

fn elements(format: Format, cell: &[u8]) -> u64 {
    match format {
        Format::Binary => binary_elements(cell).unwrap_or_else(|| length(cell)),
        Format::Text => text_elements(cell),
    }
}

/// The product of its dimensions. `None`: it does not look like an array.
fn binary_elements(cell: &[u8]) -> Option<u64> {
    let number = |place: usize| {
        let bytes = cell.get(place.checked_mul(4)?..)?.first_chunk::<4>()?;
        u64::try_from(i32::from_be_bytes(*bytes)).ok()
    };
    let dimensions = usize::try_from(number(0)?).ok()?;
    if dimensions == 0 {
        return Some(0);
    }
    // The number of dimensions, whether there are NULLs, the element type; then length and lower bound of each.
    (0..dimensions).try_fold(1u64, |product, dimension| {
        let size = number(dimension.checked_mul(2)?.checked_add(3)?)?;
        Some(product.saturating_mul(size))
    })
}

/// Delimiters outside quotes, and one: also within inner braces, for they are elements too.
fn text_elements(cell: &[u8]) -> u64 {
    let (mut quoted, mut escaped, mut delimiters, mut any) = (false, false, 0u64, false);
    for byte in cell {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => (escaped, any) = (true, true),
            b'"' => (quoted, any) = (!quoted, true),
            _ if quoted => {}
            // The delimiter of arrays of boxes.
            b',' | b';' => delimiters = delimiters.saturating_add(1),
            b'{' | b'}' => {}
            _ => any = true,
        }
    }
    if any || delimiters > 0 { delimiters.saturating_add(1) } else { 0 }
}

/// Elements of arrays at any depth, and members of objects that are no elements: those are rows, and these their columns.
fn json_elements(text: &[u8]) -> u64 {
    let (mut quoted, mut escaped, mut count) = (false, false, 0u64);
    // What each open bracket is, from the outside; and how many of them are arrays.
    let (mut open, mut arrays): (Vec<bool>, usize) = (Vec::new(), 0);
    // Something other than white space since the bracket or comma: an element begins.
    let mut begun = false;
    for byte in text {
        if quoted {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => quoted = false,
                _ => {}
            }
            continue;
        }
        if byte.is_ascii_whitespace() {
            continue;
        }
        let counts = match open.last() {
            Some(true) => true,
            Some(false) => arrays == 0,
            None => false,
        };
        match byte {
            b',' => begun = false,
            b']' | b'}' => {
                arrays = arrays.saturating_sub(usize::from(open.pop() == Some(true)));
                begun = true;
            }
            _ => {
                count = count.saturating_add(u64::from(counts && !begun));
                begun = true;
                quoted = *byte == b'"';
                if matches!(byte, b'[' | b'{') {
                    open.push(*byte == b'[');
                    arrays += usize::from(*byte == b'[');
                    begun = false;
                }
            }
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_of_an_array_in_text_are_counted() {
        for (text, count) in [
            ("{}", 0),
            ("{1}", 1),
            ("{1,2,3}", 3),
            ("{NULL,NULL}", 2),
            ("{\"a,b\",\"c\\\"d,e\"}", 2),
            ("{{1,2},{3,4}}", 4),
            ("{\"\"}", 1),
            ("[5:6]={1,2}", 2),
        ] {
            assert_eq!(text_elements(text.as_bytes()), count, "{text}");
        }
    }

    #[test]
    fn elements_of_an_array_in_binary_are_the_product_of_its_dimensions() {
        let array = |sizes: &[i32]| {
            let mut bytes = Vec::new();
            let header = [i32::try_from(sizes.len()).unwrap(), 0, 25];
            let dimensions = sizes.iter().flat_map(|size| [*size, 1]);
            header.into_iter().chain(dimensions).for_each(|number: i32| bytes.extend(number.to_be_bytes()));
            bytes
        };
        assert_eq!(binary_elements(&array(&[])), Some(0));
        assert_eq!(binary_elements(&array(&[7])), Some(7));
        assert_eq!(binary_elements(&array(&[3, 4])), Some(12));
        assert_eq!(binary_elements(&array(&[i32::MAX, i32::MAX, i32::MAX])), Some(u64::MAX));
        assert_eq!(elements(Format::Binary, &array(&[-1])), 2, "what is no array counts by its length");
        assert_eq!(elements(Format::Binary, b"x"), 0);
    }

    #[test]
    fn elements_of_documents_are_their_arrays_elements_and_the_members_of_what_is_no_element() {
        for (text, count) in [
            ("[]", 0),
            ("{}", 0),
            ("1", 0),
            ("[1, 2, 3]", 3),
            ("[null]", 1),
            ("[\"a,b\", \"c\\\"],[\"]", 2),
            ("[{\"id\": 1, \"t\": \"x\"}, {\"id\": 2, \"t\": \"y\"}]", 2),
            ("{\"k1\": \"a\", \"k2\": \"b\", \"k3\": \"c\"}", 3),
            ("{\"customers\": [{\"id\": 1}, {\"id\": 2}], \"n\": 2}", 4),
            ("[[1, 2], [3]]", 5),
            ("{\"a\": {\"b\": 1, \"c\": 2}}", 3),
            ("[{\"tags\": [1, 2]}]", 3),
            ("  [ \n 1 , 2 ]  ", 2),
        ] {
            assert_eq!(json_elements(text.as_bytes()), count, "{text}");
        }
    }

    #[test]
    fn what_has_room_for_one_value_counts_nothing_beside_its_row() {
        let of = |packing, kin, array, size| column(packing, kin, array, Format::Text, size);
        assert_eq!(of(Packing::Once, TypeKin::Int4, false, 4), Weighed::Single);
        assert_eq!(of(Packing::Nested, TypeKin::Uuid, false, 16), Weighed::Another);
        assert_eq!(of(Packing::Once, TypeKin::Text, false, -1), Weighed::Length);
        assert_eq!(of(Packing::Once, TypeKin::Name, false, 64), Weighed::Length);
        assert_eq!(of(Packing::Once, TypeKin::Numeric, false, -1), Weighed::Length);
        assert_eq!(of(Packing::Once, TypeKin::Other, true, -1), Weighed::Array(Format::Text));
        assert_eq!(of(Packing::Nested, TypeKin::Other, true, -1), Weighed::ArrayOrLength(Format::Text));
        assert_eq!(of(Packing::Nested, TypeKin::Json, false, -1), Weighed::OneOrLength);
    }
}
