//! What a source holds beside the images that became rows, counted by reason.
//!
//! A row stands for an image, with tokens or with a reason; everything else that was met on the way is here, so that nothing is left out
//! without a word.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Why something in a source became no row, or gave a row less than it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeftOutReason {
    /// A file with another extension than images, tar shards and Parquet files have.
    OtherFile,
    /// A file of a layout that is not the one that is read.
    OtherLayout,
    /// An image, as a file or in a tar, whose extension is not among `image_extensions`.
    OtherExtension,
    /// A name, or a folder above it, with a dot in front.
    Hidden,
    /// What systems and tools leave behind: `@eaDir`, `__MACOSX`, and in Parquet sources names with an underscore in front.
    Leftover,
    /// What restok itself wrote: the output, where it lies in its own source, and other outputs.
    OwnOutput,
    /// What the store lists and cannot be read: a name that cannot be asked for, a link that leads nowhere, a pipe.
    Unreachable,
    /// A link, a device or another member of a tar that is no file, without an image's extension.
    NotAFile,
    /// A folder's own entry in a tar.
    Folder,
    /// A member of a tar that is neither an image nor a label.
    OtherMember,
    /// A `.cls` or `.json` beside an image that cannot be read as one.
    SideFile,
    /// A label that is no number and no known name: the row has none.
    Label,
}

impl LeftOutReason {
    /// Every reason.
    pub const ALL: [Self; 12] = [
        Self::OtherFile,
        Self::OtherLayout,
        Self::OtherExtension,
        Self::Hidden,
        Self::Leftover,
        Self::OwnOutput,
        Self::Unreachable,
        Self::NotAFile,
        Self::Folder,
        Self::OtherMember,
        Self::SideFile,
        Self::Label,
    ];

    /// What it counts, for people.
    pub fn describe(self) -> &'static str {
        match self {
            Self::OtherFile => "files that are no images, tar shards or Parquet files",
            Self::OtherLayout => "files of another layout",
            Self::OtherExtension => "images of other extensions than those asked for",
            Self::Hidden => "hidden files",
            Self::Leftover => "leftovers of systems and tools",
            Self::OwnOutput => "files that restok wrote",
            Self::Unreachable => "names and links that cannot be read",
            Self::NotAFile => "links and other members that are no files",
            Self::Folder => "folders",
            Self::OtherMember => "members that are neither images nor labels",
            Self::SideFile => "side files that cannot be read",
            Self::Label => "labels that cannot be read",
        }
    }

    /// Whether it is likely that somebody wanted what was left out: worth a warning, not only a line.
    pub fn is_a_worry(self) -> bool {
        matches!(
            self,
            Self::OtherFile | Self::OwnOutput | Self::Unreachable | Self::NotAFile | Self::SideFile | Self::Label
        )
    }
}

/// How many were left out for one reason, and which was the first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeftOut {
    /// How many.
    pub count: u64,
    /// The first of them.
    pub first: String,
}

/// Everything that a source holds beside its rows, by reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SourceAccount(BTreeMap<LeftOutReason, LeftOut>);

impl SourceAccount {
    /// Counts one more; `name` is kept if it is the first.
    pub fn count(&mut self, reason: LeftOutReason, name: impl FnOnce() -> String) {
        match self.0.get_mut(&reason) {
            Some(left_out) => left_out.count += 1,
            None => drop(self.0.insert(reason, LeftOut { count: 1, first: name() })),
        }
    }

    /// Adds what another part of the source left out. The first names stay those that were here.
    pub fn add(&mut self, other: &Self) {
        for (&reason, left_out) in &other.0 {
            match self.0.get_mut(&reason) {
                Some(here) => here.count += left_out.count,
                None => drop(self.0.insert(reason, left_out.clone())),
            }
        }
    }

    /// Whether nothing was left out.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What was left out, by reason.
    pub fn iter(&self) -> impl Iterator<Item = (LeftOutReason, &LeftOut)> {
        self.0.iter().map(|(&reason, left_out)| (reason, left_out))
    }

    /// How many were left out for one reason.
    pub fn of(&self, reason: LeftOutReason) -> u64 {
        self.0.get(&reason).map_or(0, |left_out| left_out.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_add_up_and_the_first_name_stays() {
        let mut account = SourceAccount::default();
        assert!(account.is_empty());
        account.count(LeftOutReason::Hidden, || ".a".to_owned());
        account.count(LeftOutReason::Hidden, || unreachable!("only the first name is made"));
        let mut other = SourceAccount::default();
        other.count(LeftOutReason::Hidden, || ".b".to_owned());
        other.count(LeftOutReason::Label, || "c.cls".to_owned());
        account.add(&other);
        let found: Vec<_> = account.iter().map(|(reason, left)| (reason, left.count, left.first.as_str())).collect();
        assert_eq!(found, [(LeftOutReason::Hidden, 3, ".a"), (LeftOutReason::Label, 1, "c.cls")]);
        assert_eq!((account.of(LeftOutReason::Hidden), account.of(LeftOutReason::Folder)), (3, 0));
    }

    #[test]
    fn every_reason_reads_back_from_json() {
        let mut account = SourceAccount::default();
        for reason in LeftOutReason::ALL {
            account.count(reason, || reason.describe().to_owned());
        }
        let json = serde_json::to_string(&account).expect("written");
        assert!(json.contains(r#""other_file":{"count":1,"#), "{json}");
        assert_eq!(serde_json::from_str::<SourceAccount>(&json).expect("read"), account);
    }
}
