//! Explanations.

use super::Explanation;

pub(crate) const ALL: &[Explanation] = &[];
