//! Which layers lie around a snapshot file: the extensions of its name say so.

use std::fmt;

/// The layers around the snapshot, from the inside: zstd frames, then age.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Layers {
    /// The file is cut into independent zstd frames.
    pub zstd: bool,
    /// The (compressed) file is encrypted in the age format.
    pub age: bool,
}

impl Layers {
    /// What Lifeboat writes unless told otherwise: compressed and sealed.
    pub const SEALED: Self = Self { zstd: true, age: true };
    /// All four combinations.
    pub const ALL: [Self; 4] =
        [Self { zstd: false, age: false }, Self { zstd: true, age: false }, Self { zstd: false, age: true }, Self::SEALED];

    /// The name of the data object: `db`, `db.zst`, `db.age` or `db.zst.age`.
    pub fn object_name(self) -> &'static str {
        match (self.zstd, self.age) {
            (false, false) => "db",
            (true, false) => "db.zst",
            (false, true) => "db.age",
            (true, true) => "db.zst.age",
        }
    }

    /// The layers a data object's name tells, or none when it is no data object's name.
    pub fn from_object_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|layers| layers.object_name() == name)
    }
}

impl fmt::Display for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.object_name())
    }
}
