//! What a commit writes: definitions of series and samples, in groups of the log.

use super::Pending;
use crate::labels::limits::SET_BYTES_MAX;
use crate::log::{GROUP_BYTES_MAX, Group, SeriesDefinition};
use crate::series::Series;
use std::collections::HashSet;
use std::sync::Arc;

/// Most samples, or deletes, in one log group: at most 24 bytes each.
pub(super) const SAMPLES_PER_GROUP_MAX: usize = 700;
/// Most label text in one log group, before the last set.
const LABEL_BYTES_PER_GROUP_MAX: usize = 12 << 10;

// A group has a last set, or samples, beside other sets; lengths and numbers are the rest.
const _: () = assert!(LABEL_BYTES_PER_GROUP_MAX + SET_BYTES_MAX + 1_500 <= GROUP_BYTES_MAX);
const _: () = assert!(LABEL_BYTES_PER_GROUP_MAX + SAMPLES_PER_GROUP_MAX * 24 + 1_500 <= GROUP_BYTES_MAX);

/// The series whose first samples are among these, each once.
pub(super) fn new_series(pending: &[Pending]) -> Vec<Arc<Series>> {
    let mut seen = HashSet::new();
    let mut created = Vec::new();
    for one in pending {
        for (at, _) in &one.admitted {
            let series = &one.append.series[*at];
            if !series.is_durable() && seen.insert(series.id) {
                created.push(Arc::clone(series));
            }
        }
    }
    created
}

/// Packs definitions and samples into groups, each small enough for one record.
pub(super) fn groups_of(created: &[Arc<Series>], pending: &[Pending]) -> Vec<Group> {
    let mut groups = Vec::new();
    let mut group = Group::default();
    let mut label_bytes = 0;
    for series in created {
        let labels = series.labels.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
        group.series.push(SeriesDefinition { id: series.id, labels });
        label_bytes += series.labels.iter().map(|(n, v)| n.len() + v.len() + 16).sum::<usize>();
        if label_bytes > LABEL_BYTES_PER_GROUP_MAX {
            groups.push(std::mem::take(&mut group));
            label_bytes = 0;
        }
    }
    for one in pending {
        for (at, sample) in &one.admitted {
            group.samples.push((one.append.series[*at].id, *sample));
            if group.samples.len() == SAMPLES_PER_GROUP_MAX {
                groups.push(std::mem::take(&mut group));
            }
        }
    }
    if group != Group::default() {
        groups.push(group);
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::append::{OutOfOrder, WriteReport};
    use crate::commit::Append;
    use crate::labels::Labels;
    use crate::log::{Delete, group_bytes};
    use crate::sample::Sample;
    use crate::stored_labels::LabelPool;

    /// A series of `count` labels with `text_bytes` of text.
    fn series(pool: &mut LabelPool, id: u32, count: usize, text_bytes: usize) -> Arc<Series> {
        let each = text_bytes / count;
        let label = |at: usize| (format!("l{at:09}"), "v".repeat(each - 10));
        let name = ("__name__".to_owned(), "m".repeat(text_bytes - (count - 1) * each - 8));
        let labels = Labels::new((1..count).map(label).chain([name])).expect("within the limits");
        Arc::new(Series::new(id, pool.store(&labels), false))
    }

    /// An append of these samples, all to series of its own.
    fn pending(series: Vec<Arc<Series>>, admitted: Vec<(usize, Sample)>) -> Pending {
        let (samples, done) = (Vec::new(), Box::new(|_| {}));
        let append = Append { samples, series, now_ms: 0, out_of_order: OutOfOrder::Window, done };
        Pending { append, report: WriteReport::default(), admitted }
    }

    #[test]
    fn the_largest_groups_fit() {
        let mut pool = LabelPool::default();
        // Counted with 16 bytes a label: just not enough to end a group, so that one more set comes in.
        let before = |pool: &mut LabelPool| series(pool, 1, 40, LABEL_BYTES_PER_GROUP_MAX - 40 * 16);
        let ends = [
            // Lengths of three bytes each, and as many labels as there may be.
            series(&mut pool, u32::MAX - 1, 56, SET_BYTES_MAX),
            series(&mut pool, u32::MAX - 1, 128, SET_BYTES_MAX),
        ];
        let mut largest = 0;
        for end in ends {
            let groups = groups_of(&[before(&mut pool), end], &[]);
            assert_eq!((groups.len(), groups[0].series.len()), (1, 2));
            largest = largest.max(group_bytes(&groups[0]));
        }
        // Each sample of the most bytes there are.
        let few = Labels::new([("__name__", "m")]).expect("valid");
        let of_two = [Arc::new(Series::new(0, pool.store(&few), true)), before(&mut pool)];
        let far = Arc::new(Series::new(1 << 31, pool.store(&few), true));
        let samples = (0..SAMPLES_PER_GROUP_MAX).map(|at| {
            let timestamp_ms = if at % 2 == 0 { i64::MIN / 2 } else { i64::MAX / 2 };
            (at % 2 * 2, Sample::new(timestamp_ms, f64::from_bits(0x7ff8_dead_beef_0000 + at as u64)))
        });
        let one = pending(vec![Arc::clone(&of_two[0]), Arc::clone(&of_two[1]), far], samples.collect());
        let groups = groups_of(&of_two[1..], &[one]);
        assert_eq!((groups.len(), groups[0].series.len()), (1, 1));
        largest = largest.max(group_bytes(&groups[0]));
        let delete = Delete { series: u32::MAX, start_ms: i64::MIN, end_ms: i64::MAX };
        let deletes = Group { deletes: vec![delete; SAMPLES_PER_GROUP_MAX], ..Group::default() };
        largest = largest.max(group_bytes(&deletes));
        assert!((GROUP_BYTES_MAX - 2_500..=GROUP_BYTES_MAX).contains(&largest), "{largest} bytes");
    }
}
