//! Types by what a mask can write into them. Everything not named here can be masked with NULL only, arrays,
//! composites, ranges and enums included.

/// OIDs of built-in types are fixed in the server's sources.
mod oid {
    pub(super) const BYTEA: u32 = 17;
    pub(super) const NAME: u32 = 19;
    pub(super) const INT8: u32 = 20;
    pub(super) const INT2: u32 = 21;
    pub(super) const INT4: u32 = 23;
    pub(super) const TEXT: u32 = 25;
    pub(super) const JSON: u32 = 114;
    pub(super) const CIDR: u32 = 650;
    pub(super) const FLOAT4: u32 = 700;
    pub(super) const FLOAT8: u32 = 701;
    pub(super) const INET: u32 = 869;
    pub(super) const BPCHAR: u32 = 1042;
    pub(super) const VARCHAR: u32 = 1043;
    pub(super) const DATE: u32 = 1082;
    pub(super) const TIMESTAMP: u32 = 1114;
    pub(super) const TIMESTAMPTZ: u32 = 1184;
    pub(super) const NUMERIC: u32 = 1700;
    pub(super) const UUID: u32 = 2950;
    pub(super) const JSONB: u32 = 3802;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TypeKin {
    /// text, varchar, citext.
    Text,
    /// Of at most 63 bytes.
    Name,
    /// bpchar: blanks at the end are padding, not value.
    PaddedText,
    Json,
    Jsonb,
    Bytea,
    Uuid,
    Date,
    Timestamp,
    Timestamptz,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    Numeric,
    Inet,
    Cidr,
    /// Everything else: only NULL is surely valid.
    Other,
}

impl TypeKin {
    /// By OID; `name` is the catalog's name of the type, for those that extensions bring. A type of that name that
    /// is not the extension's own gets a mask its input may not accept, but never its value.
    pub fn of(oid: u32, name: Option<&str>) -> Self {
        match oid {
            oid::TEXT | oid::VARCHAR => Self::Text,
            oid::NAME => Self::Name,
            oid::BPCHAR => Self::PaddedText,
            oid::JSON => Self::Json,
            oid::JSONB => Self::Jsonb,
            oid::BYTEA => Self::Bytea,
            oid::UUID => Self::Uuid,
            oid::DATE => Self::Date,
            oid::TIMESTAMP => Self::Timestamp,
            oid::TIMESTAMPTZ => Self::Timestamptz,
            oid::INT2 => Self::Int2,
            oid::INT4 => Self::Int4,
            oid::INT8 => Self::Int8,
            oid::FLOAT4 => Self::Float4,
            oid::FLOAT8 => Self::Float8,
            oid::NUMERIC => Self::Numeric,
            oid::INET => Self::Inet,
            oid::CIDR => Self::Cidr,
            _ if name == Some("citext") => Self::Text,
            _ => Self::Other,
        }
    }

    /// Its values are texts that a mask may be written into.
    pub fn is_text(self) -> bool {
        matches!(self, Self::Text | Self::Name | Self::PaddedText)
    }
}
