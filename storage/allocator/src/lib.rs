//! The memory allocator of Lookback: mimalloc, asked for no more than is needed, and told to give memory back soon.
//!
//! A crate of its own because that takes calls of C, and everything else of Lookback forbids unsafe code.

use libmimalloc_sys::{
    mi_collect, mi_free, mi_malloc, mi_malloc_aligned, mi_option_get, mi_option_set, mi_option_t, mi_realloc,
    mi_realloc_aligned, mi_zalloc, mi_zalloc_aligned,
};
use std::alloc::{GlobalAlloc, Layout};
use std::ffi::{c_long, c_void};

/// mimalloc, as the global allocator of a process.
///
/// It asks by alignment only where that is more than every block has: asked so for 96 bytes, mimalloc 3 looks
/// for 96 and an alignment less one, and takes 112.
pub struct MiMalloc;

/// Every block of at least so many bytes is aligned to them: `MI_MAX_ALIGN_SIZE` of mimalloc
/// (`include/mimalloc/types.h`).
const ALIGN_OF_ALL: usize = 16;

/// Whether a block is aligned as it must be without a word.
#[inline]
fn is_aligned_anyway(layout: Layout, bytes: usize) -> bool {
    layout.align() <= ALIGN_OF_ALL && layout.align() <= bytes
}

#[expect(unsafe_code, reason = "the allocator of C")]
// SAFETY: mimalloc gives what `GlobalAlloc` asks for: blocks of at least the size, or null; aligned, since a
// block of mimalloc is a multiple of 16 bytes and begins at one, and those of 8 bytes and less at one of 8.
unsafe impl GlobalAlloc for MiMalloc {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let bytes = layout.size();
        // SAFETY: both take numbers by value, and a layout's alignment is a power of two.
        let block = unsafe {
            if is_aligned_anyway(layout, bytes) {
                mi_malloc(bytes)
            } else {
                mi_malloc_aligned(bytes, layout.align())
            }
        };
        block.cast()
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let bytes = layout.size();
        // SAFETY: as of `alloc`.
        let block = unsafe {
            if is_aligned_anyway(layout, bytes) {
                mi_zalloc(bytes)
            } else {
                mi_zalloc_aligned(bytes, layout.align())
            }
        };
        block.cast()
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, _: Layout) {
        // SAFETY: the caller says that the block is one of this allocator, however it was asked for.
        unsafe { mi_free(block.cast::<c_void>()) }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        // SAFETY: as of `alloc` and `dealloc`.
        let block = unsafe {
            if is_aligned_anyway(layout, bytes) {
                mi_realloc(block.cast::<c_void>(), bytes)
            } else {
                mi_realloc_aligned(block.cast::<c_void>(), bytes, layout.align())
            }
        };
        block.cast()
    }
}

/// For how long mimalloc keeps freed memory before it gives it back to the system, in milliseconds:
/// `mi_option_purge_delay` of mimalloc 3 (`include/mimalloc.h`), for which the binding has no name.
const PURGE_DELAY: mi_option_t = 15;

/// What it is where nobody has changed it.
const PURGE_DELAY_DEFAULT_MS: c_long = 1_000;

/// What it is here. Measured while two days of 3,500 series are loaded: the process takes some 40 % less than by the
/// default, at the same CPU time; with 0 it takes a tenth less than that, and a third more CPU time.
const PURGE_DELAY_MS: c_long = 50;

/// Lets freed memory go back to the system soon; to be called before there is a second thread. The environment
/// variable `MIMALLOC_PURGE_DELAY` goes before it.
pub fn give_back_soon() {
    #[expect(unsafe_code, reason = "options are set by C alone")]
    // SAFETY: both take numbers by value and check them against the options there are; they are not safe beside another
    // thread that sets options, and nobody else does.
    unsafe {
        // Something else is left alone: what the environment says, or another option in this place of a later version.
        if mi_option_get(PURGE_DELAY) == PURGE_DELAY_DEFAULT_MS {
            mi_option_set(PURGE_DELAY, PURGE_DELAY_MS);
        }
    }
}

/// Gives all of the calling thread's memory back that other threads have freed, and what threads that have ended left
/// behind: without it that waits until the thread allocates the like again. Takes milliseconds.
pub fn give_back_now() {
    #[expect(unsafe_code, reason = "it is a call of C")]
    // SAFETY: it takes a flag by value, and may be called by any thread at any time.
    unsafe {
        mi_collect(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libmimalloc_sys::mi_usable_size;

    #[test]
    fn blocks_are_aligned_and_no_larger_than_need_be() {
        for align in [1, 2, 4, 8, 16, 32, 64, 4_096] {
            for bytes in (1..=1_100).step_by(3).chain([96, 160, 8_192, 70_000]) {
                let layout = Layout::from_size_align(bytes, align).expect("a layout");
                let twice = Layout::from_size_align(2 * bytes, align).expect("a layout");
                #[expect(unsafe_code, reason = "it is the allocator that is tried")]
                // SAFETY: each block is of this allocator, of the layout that is said, and given back once.
                unsafe {
                    let block = MiMalloc.alloc(layout);
                    assert!(!block.is_null() && block.addr().is_multiple_of(align), "{layout:?}");
                    block.write_bytes(7, bytes);
                    if align <= ALIGN_OF_ALL && bytes >= align && bytes <= 128 {
                        let usable = mi_usable_size(block.cast::<c_void>());
                        assert!(usable < bytes + ALIGN_OF_ALL, "{usable} bytes for {layout:?}");
                    }
                    let block = MiMalloc.realloc(block, layout, twice.size());
                    assert!(block.addr().is_multiple_of(align) && block.add(bytes - 1).read() == 7);
                    MiMalloc.dealloc(block, twice);
                    let zeroed = MiMalloc.alloc_zeroed(layout);
                    assert!(zeroed.addr().is_multiple_of(align));
                    assert!(std::slice::from_raw_parts(zeroed, bytes).iter().all(|byte| *byte == 0));
                    MiMalloc.dealloc(zeroed, layout);
                }
            }
        }
    }

    #[test]
    fn the_option_is_the_one_that_is_meant() {
        if std::env::var_os("MIMALLOC_PURGE_DELAY").is_some() {
            return;
        }
        give_back_soon();
        #[expect(unsafe_code, reason = "options are told by C alone")]
        // SAFETY: takes a number by value and checks it.
        let now_ms = unsafe { mi_option_get(PURGE_DELAY) };
        assert_eq!(now_ms, PURGE_DELAY_MS, "mimalloc has another default or another order of options now");
    }
}
