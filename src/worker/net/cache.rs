//! Memory that is about to be used.

/// Bytes of a line of cache.
const LINE: usize = 64;

/// Has the first bytes of a value fetched, all at once: who uses them would wait for one line after the other.
#[inline]
pub fn prefetch<T>(value: &T, bytes: usize) {
    let begin = std::ptr::from_ref(value).cast::<i8>();
    for at in (0..bytes.min(size_of::<T>())).step_by(LINE) {
        fetch(begin.wrapping_add(at));
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn fetch(line: *const i8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a prefetch reads nothing, whatever the address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(line) }
}

#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn fetch(_line: *const i8) {}
