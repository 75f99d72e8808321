//! The heap of our programs: the system's, but what is large lies in large pages.
//!
//! A look-up in a table of many megabytes touches another page each time, and the processor's TLB holds 1500 to 2000 of
//! them: with pages of 4 KiB most looks cost a walk through the page tables on top of the miss. In pages of 2 MiB the flow
//! table, the FIB and the policy's cells of a large node fit. Where transparent huge pages are set to `madvise`
//! (`/sys/kernel/mm/transparent_hugepage/enabled`) the kernel gives them to who asks only, so that asking is all there is to
//! it; where it has none to give, or is told to give none, memory is in ordinary pages as it was.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr::null_mut;

/// Bytes of a large page: of x86-64, and of arm64 with pages of 4 KiB. Where it is another this is only an alignment.
const HUGE: usize = 2 << 20;
/// Pages are no smaller than this, and its multiples by powers of two.
const PAGE: usize = 4096;

/// To be a program's `#[global_allocator]`. Allocations of 2 MiB and more are mappings of their own, which begin on a large
/// page; what is left of the last one is in ordinary pages, so that nothing is rounded up.
#[derive(Debug, Clone, Copy, Default)]
pub struct Heap;

fn is_large(size: usize, align: usize) -> bool {
    size >= HUGE && align <= HUGE
}

// SAFETY: memory is the system allocator's, or a private mapping of at least the size and the alignment that were asked for;
// which of both follows from the layout alone, so that memory ends the way it began. Nothing here panics or allocates.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_large(layout.size(), layout.align()) {
            return map(layout.size());
        }
        // SAFETY: the caller's contract is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_large(layout.size(), layout.align()) {
            return map(layout.size());
        }
        // SAFETY: the caller's contract is the same.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        if is_large(layout.size(), layout.align()) {
            // SAFETY: a mapping of this size begins there: the layout is that of the allocation.
            return unsafe { unmap(at, layout.size()) };
        }
        // SAFETY: the caller's contract is the same, and the memory is the system allocator's.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !is_large(layout.size(), layout.align()) && !is_large(size, layout.align()) {
            // SAFETY: the caller's contract is the same, and the memory is the system allocator's before and after.
            return unsafe { System.realloc(at, layout, size) };
        }
        // Copied, not moved page by page (mremap): where it went it would not begin on a large page.
        // SAFETY: the alignment is one already, and the caller answers for the size.
        let new = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        // SAFETY: the size is not zero, as the caller answers for.
        let moved = unsafe { self.alloc(new) };
        if !moved.is_null() {
            // SAFETY: both are as long as the shorter of the two, and new memory overlaps with none that is held.
            unsafe { std::ptr::copy_nonoverlapping(at, moved, layout.size().min(size)) };
            // SAFETY: the caller's contract; nobody uses the memory any more.
            unsafe { self.dealloc(at, layout) };
        }
        moved
    }
}

fn to_pages(size: usize) -> usize {
    size.next_multiple_of(PAGE)
}

/// Zeroed memory of `size` bytes from a multiple of [`HUGE`] on; null when there is none.
fn map(size: usize) -> *mut u8 {
    let Some(length) = to_pages(size).checked_add(HUGE) else { return null_mut() };
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a null hint lets the kernel choose an unused range, so no existing mapping is replaced.
    let start = unsafe { libc::mmap(null_mut(), length, protection, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return null_mut();
    }
    let start: *mut u8 = start.cast();
    let before = start.align_offset(HUGE).min(HUGE);
    let first = start.wrapping_add(before);
    // What lies around it is nobody's.
    // SAFETY: the bytes before `first` are of the new mapping, which nobody else knows.
    unsafe { unmap(start, before) };
    // SAFETY: as are those behind the last page.
    unsafe { unmap(first.wrapping_add(to_pages(size)), HUGE - before) };
    // A kernel without large pages says so; the memory is as good.
    // SAFETY: the range is of the new mapping, and the advice changes no byte of it.
    unsafe { libc::madvise(first.cast(), to_pages(size), libc::MADV_HUGEPAGE) };
    first
}

/// Ends `size` bytes of a mapping; none is nothing to do.
///
/// # Safety
///
/// They are whole pages of mappings made here, and nobody uses them any more.
unsafe fn unmap(at: *mut u8, size: usize) {
    if size > 0 {
        // SAFETY: the caller's contract. It cannot fail but for want of kernel memory to split a mapping, and then the
        // range stays mapped, and unused.
        unsafe { libc::munmap(at.cast(), to_pages(size)) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes<'a>(at: *mut u8, layout: Layout) -> &'a mut [u8] {
        assert!(!at.is_null());
        // SAFETY: tests call it with what `Heap` has just given for this layout, and hold it once.
        unsafe { std::slice::from_raw_parts_mut(at, layout.size()) }
    }

    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size, 64).unwrap()
    }

    #[test]
    fn what_is_large_begins_on_a_large_page_is_zero_and_is_asked_for() {
        let layout = layout(3 * HUGE + 12_345);
        // SAFETY: the size is not zero.
        let at = unsafe { Heap.alloc_zeroed(layout) };
        assert_eq!(at as usize % HUGE, 0);
        assert!(bytes(at, layout).iter().all(|byte| *byte == 0));
        bytes(at, layout).fill(0x5a);
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let flags = maps
            .lines()
            .skip_while(|line| !line.starts_with(&format!("{:x}-", at as usize)))
            .find_map(|line| line.strip_prefix("VmFlags:"));
        // Two mappings side by side may have become one, which begins elsewhere.
        let advised = flags.is_none_or(|flags| flags.split_whitespace().any(|flag| flag == "hg"));
        let kernel_has_any = std::path::Path::new("/sys/kernel/mm/transparent_hugepage").exists();
        assert!(advised || !kernel_has_any, "{flags:?}");
        // SAFETY: it was given above for this layout.
        unsafe { Heap.dealloc(at, layout) };
    }

    #[test]
    fn bytes_are_kept_as_memory_grows_and_shrinks_over_the_limit() {
        let sizes = [100, HUGE - 1, HUGE, 5 * HUGE + 3, 2 * HUGE, HUGE - 64, 10];
        // SAFETY: the size is not zero.
        let mut at = unsafe { Heap.alloc(layout(sizes[0])) };
        let mut kept: Vec<u8> = (0..sizes[0]).map(|byte| byte as u8).collect();
        bytes(at, layout(sizes[0])).copy_from_slice(&kept);
        for [before, size] in sizes.array_windows() {
            // SAFETY: it was given for a layout of this size, and is used no more.
            at = unsafe { Heap.realloc(at, layout(*before), *size) };
            kept.truncate(*size);
            assert_eq!(at as usize % 16, 0);
            assert!(bytes(at, layout(*size)).starts_with(&kept), "{before} to {size}");
            kept = (0..*size).map(|byte| (byte / 7) as u8).collect();
            bytes(at, layout(*size)).copy_from_slice(&kept);
        }
        // SAFETY: it was given for this layout.
        unsafe { Heap.dealloc(at, layout(sizes[sizes.len() - 1])) };
    }

    #[test]
    fn what_cannot_be_had_is_refused() {
        let layout = Layout::from_size_align(isize::MAX as usize - 63, 64).unwrap();
        // SAFETY: the size is not zero.
        assert!(unsafe { Heap.alloc(layout) }.is_null());
        // SAFETY: as above.
        let at = unsafe { Heap.alloc(Layout::from_size_align(HUGE, 2 * HUGE).unwrap()) };
        assert_eq!(at as usize % (2 * HUGE), 0, "a larger alignment is the system's to give");
        // SAFETY: it was given above for this layout.
        unsafe { Heap.dealloc(at, Layout::from_size_align(HUGE, 2 * HUGE).unwrap()) };
    }
}
