//! How large what a client sends may be.

/// Limits of bodies, filters and operations; `docs/limits.md` says what is past each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How deep arrays and objects may nest; SCIM needs five.
    pub json_depth: usize,
    /// The most values of a body, with those inside of others: each takes memory many times what it
    /// takes in the text.
    pub json_values: usize,
    /// The longest filter or path, in bytes.
    pub filter_bytes: usize,
    /// How deep a filter may nest.
    pub filter_depth: usize,
    /// The most comparisons of a filter.
    pub filter_comparisons: usize,
    /// The most operations of a PATCH.
    pub patch_operations: usize,
    /// The most members of a group in one request.
    pub members: usize,
}

impl Limits {
    /// What holds unless it is set otherwise.
    pub const DEFAULT: Self = Self {
        json_depth: 32,
        json_values: 1_000_000,
        filter_bytes: 8 * 1_024,
        filter_depth: 16,
        filter_comparisons: 100,
        patch_operations: 1_000,
        members: 200_000,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}
