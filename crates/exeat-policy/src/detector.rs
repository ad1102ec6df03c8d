//! Detectors by name: what `detect:` may list. What each looks for is the enforcing side's.

/// A kind of data that is known by how it looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Detector {
    Card,
    Iban,
    UsSsn,
    Email,
    Phone,
    CloudKey,
    Jwt,
    PrivateKey,
}

impl Detector {
    pub const ALL: &'static [Detector] = &[
        Detector::Card,
        Detector::Iban,
        Detector::UsSsn,
        Detector::Email,
        Detector::Phone,
        Detector::CloudKey,
        Detector::Jwt,
        Detector::PrivateKey,
    ];

    /// The name in `detect` lists.
    pub fn name(self) -> &'static str {
        match self {
            Detector::Card => "card",
            Detector::Iban => "iban",
            Detector::UsSsn => "us_ssn",
            Detector::Email => "email",
            Detector::Phone => "phone",
            Detector::CloudKey => "cloud_key",
            Detector::Jwt => "jwt",
            Detector::PrivateKey => "private_key",
        }
    }
}
