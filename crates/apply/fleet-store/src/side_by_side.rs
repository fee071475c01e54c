//! [`side_by_side`]: the same for each of many things, on as many threads as that is worth.

use rayon::prelude::*;

/// Does the same to each, on several threads where there are more than `at_a_time`. A run that has little to do never starts a
/// second thread.
pub(crate) fn side_by_side<T: Send, R: Send>(
    items: Vec<T>,
    at_a_time: usize,
    work: impl Fn(T) -> R + Send + Sync,
) -> Vec<R> {
    if items.len() > at_a_time {
        items.into_par_iter().with_min_len(at_a_time).map(work).collect()
    } else {
        items.into_iter().map(work).collect()
    }
}
