//! What it costs a core to count a request while another one counts, too: in cells of their own, as the product has it, and
//! for comparison in cells that share a line.

use criterion::Criterion;
use ringway::route::counts::ClusterEnds;
use std::hint::black_box;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::thread;

/// Runs a bench while `threads` others do the same work, each with its own number.
fn beside(criterion: &mut Criterion, name: &str, threads: usize, work: impl Fn(usize) + Sync) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for other in 1..=threads {
            let (done, work) = (&done, &work);
            scope.spawn(move || {
                while !done.load(Relaxed) {
                    (0..1000).for_each(|_| work(black_box(other)));
                }
            });
        }
        criterion.bench_function(&format!("{name}/{} cores", threads + 1), |b| b.iter(|| work(black_box(0))));
        done.store(true, Relaxed);
    });
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let most = thread::available_parallelism().map_or(2, usize::from);
    for others in [0, most - 1] {
        let ends = ClusterEnds::new(most);
        beside(&mut criterion, "own cells", others, |core| ends.core(core).add(0, 200));
        let packed: Vec<[AtomicU64; 2]> = (0..most).map(|_| Default::default()).collect();
        beside(&mut criterion, "one line", others, |core| {
            for counter in &packed[core] {
                counter.store(counter.load(Relaxed).wrapping_add(1), Relaxed);
            }
        });
    }
    criterion.final_summary();
}
