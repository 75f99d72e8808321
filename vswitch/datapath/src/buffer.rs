//! What holds a packet's bytes. The engine's frames implement [`Buffer`]; so does a plain vector in tests.

/// A packet's bytes with room to grow at both ends. It is owned: moved from stage to stage, never copied as a handle.
///
/// ```text
/// | headroom | bytes | tailroom |
/// ```
pub trait Buffer: Sized {
    /// The packet's bytes.
    fn bytes(&self) -> &[u8];

    /// The packet's bytes, to be changed in place.
    fn bytes_mut(&mut self) -> &mut [u8];

    /// Free bytes before the packet.
    fn headroom(&self) -> usize;

    /// Free bytes after the packet.
    fn tailroom(&self) -> usize;

    /// Grows the packet at its front by `count` bytes of the headroom, whose content is undefined. False, and nothing
    /// changed, when the headroom is smaller.
    #[must_use]
    fn grow_front(&mut self, count: usize) -> bool;

    /// Cuts `count` bytes off the front; they become headroom. More than there are cuts all.
    fn cut_front(&mut self, count: usize);

    /// Makes the packet `length` bytes long by cutting or growing its end. False, and nothing changed, when the
    /// tailroom is too small. New bytes are undefined.
    #[must_use]
    fn set_len(&mut self, length: usize) -> bool;

    /// Tells the processor that something is read soon, so that nobody waits for it then; where the buffers are none of ours,
    /// nothing is told. (It takes an unsafe call, and none is made here.)
    #[inline(always)]
    fn foretell<T>(_place: &T) {}

    /// Takes over what is known of another buffer's packet beside its bytes: this one is a piece of it, or is made of it.
    fn follow(&mut self, _other: &Self) {}
}

/// A buffer in ordinary memory: what tests and memory ports without a UMEM use.
#[derive(Debug, Clone)]
pub struct VecBuffer {
    memory: Vec<u8>,
    start: usize,
    end: usize,
}

impl VecBuffer {
    /// Headroom of [`VecBuffer::of`], the same as the engine's frames have.
    pub const HEADROOM: usize = 256;
    /// Capacity of [`VecBuffer::of`]: one UMEM frame.
    pub const CAPACITY: usize = 2048;

    /// A buffer that holds `bytes`, with room before and after as a UMEM frame has. What is around them is junk.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self::with_headroom(bytes, Self::HEADROOM)
    }

    /// The same with a headroom of its own.
    #[must_use]
    pub fn with_headroom(bytes: &[u8], headroom: usize) -> Self {
        let end = headroom + bytes.len();
        let mut memory = vec![0xa5; end.max(Self::CAPACITY)];
        memory[headroom..end].copy_from_slice(bytes);
        Self { memory, start: headroom, end }
    }
}

impl Buffer for VecBuffer {
    fn bytes(&self) -> &[u8] {
        &self.memory[self.start..self.end]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.end]
    }

    fn headroom(&self) -> usize {
        self.start
    }

    fn tailroom(&self) -> usize {
        self.memory.len() - self.end
    }

    fn grow_front(&mut self, count: usize) -> bool {
        let fits = count <= self.start;
        if fits {
            self.start -= count;
        }
        fits
    }

    fn cut_front(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
    }

    fn set_len(&mut self, length: usize) -> bool {
        let end = self.start + length;
        let fits = end <= self.memory.len();
        if fits {
            self.end = end;
        }
        fits
    }
}
