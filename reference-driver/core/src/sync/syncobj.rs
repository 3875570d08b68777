//! Syncobjs: a place for a fence that outlives it, binary or a timeline of points.
//!
//! Owns the payload and the rules of `drivers/gpu/drm/drm_syncobj.c` and `dma-fence-chain.c`: points
//! in order, points out of order (which start a new context), the search for a point, the query.

use fencepost_uapi::Errno;

use crate::counters::{Counter, Counters};
use crate::facade::{AllocError, Arc, Fifo, Mutex, Rank, Vec};
use crate::sync::fence::{pending_into, Fence};

/// A syncobj.
pub struct Syncobj {
    payload: Mutex<Payload>,
    counters: Arc<Counters>,
}

/// One point of a timeline, a `dma_fence_chain` node: it is signalled when its own fence and
/// everything before it are.
struct Point {
    seqno: u64,
    /// Number of the point before in the same context; 0: none.
    prev_seqno: u64,
    context: u64,
    fence: Arc<Fence>,
}

/// What a syncobj holds: a fence, or points after it.
struct Payload {
    base: Option<Arc<Fence>>,
    points: Fifo<Point>,
    /// Places of `points` that callers were promised.
    promised: usize,
    next_context: u64,
}

impl Payload {
    fn is_empty(&self) -> bool {
        self.base.is_none() && self.points.is_empty()
    }

    /// Forgets what has signalled, but for the last point: that is the payload.
    fn collect(&mut self) {
        if !self.points.is_empty() && self.base.as_ref().is_some_and(|base| base.is_signalled()) {
            self.base = None;
        }
        while self.base.is_none()
            && self.points.len() > 1
            && self.points.front().is_some_and(|point| point.fence.is_signalled())
        {
            self.points.pop_front();
        }
    }

    /// Index in `points` of the node that stands for a point, as `dma_fence_chain_find_seqno`
    /// finds it: the earliest one of the last context that is not before the point. `None`: no
    /// node needs waiting for.
    fn find(&self, seqno: u64) -> Result<Option<usize>, Errno> {
        let last = self.points.back().filter(|last| last.seqno >= seqno).ok_or(Errno::INVAL)?;
        let is_it = |point: &Point| point.context != last.context || point.prev_seqno < seqno;
        let nodes = self.points.iter().enumerate();
        Ok(nodes.filter(|(_, point)| is_it(point)).map(|(index, _)| index).last())
    }

    /// The fences up to a node (or up to the fence under the chain) that have not signalled.
    fn pending(&self, node: Option<usize>) -> Result<Vec<Arc<Fence>>, AllocError> {
        let mut pending = Vec::new();
        if let Some(base) = &self.base {
            pending_into(base, &mut pending)?;
        }
        for point in self.points.iter().take(node.map_or(0, |index| index + 1)) {
            pending_into(&point.fence, &mut pending)?;
        }
        Ok(pending)
    }
}

/// A place for a point, promised by [`Syncobj::reserve`]; to be given to [`Syncobj::add_point`] or
/// [`Syncobj::cancel`].
#[must_use = "a place must be used or given back"]
pub struct Place(());

impl Syncobj {
    /// A syncobj that holds a fence or nothing.
    ///
    /// # Errors
    /// [`AllocError`] without memory.
    pub fn new(
        counters: &Arc<Counters>,
        fence: Option<Arc<Fence>>,
    ) -> Result<Arc<Syncobj>, AllocError> {
        let payload = Payload { base: fence, points: Fifo::new(), promised: 0, next_context: 1 };
        let payload = Mutex::new(Rank::Syncobj, payload)?;
        // Its end gives back what it counts here, also when there is no memory for it.
        counters.inc(Counter::LiveSyncobjs);
        Arc::new(Syncobj { payload, counters: counters.clone() })
    }

    /// Puts a fence, or nothing, in the place of whatever it held (`drm_syncobj_replace_fence`).
    pub fn replace(&self, fence: Option<Arc<Fence>>) {
        let mut payload = self.payload.lock();
        payload.base = fence;
        while payload.points.pop_front().is_some() {}
    }

    /// Makes room for a point, so that adding it cannot fail.
    ///
    /// # Errors
    /// [`AllocError`] without memory.
    pub fn reserve(&self) -> Result<Place, AllocError> {
        let mut payload = self.payload.lock();
        payload.collect();
        let wanted = payload.promised + 1;
        payload.points.reserve(wanted)?;
        payload.promised = wanted;
        Ok(Place(()))
    }

    /// Gives a promised place back.
    pub fn cancel(&self, _place: Place) {
        self.payload.lock().promised -= 1;
    }

    /// Adds a point after those there are (`drm_syncobj_add_point`). One that is not after the last
    /// starts a new context and takes at least the last one's number.
    pub fn add_point(&self, _place: Place, seqno: u64, fence: Arc<Fence>) {
        let mut payload = self.payload.lock();
        payload.promised -= 1;
        let last = payload.points.back().map(|last| (last.seqno, last.context));
        let point = match last {
            Some((prev, context)) if seqno > prev => {
                Point { seqno, prev_seqno: prev, context, fence }
            }
            _ => {
                let context = payload.next_context;
                payload.next_context += 1;
                let seqno = last.map_or(seqno, |(prev, _)| prev.max(seqno));
                Point { seqno, prev_seqno: 0, context, fence }
            }
        };
        let fits = payload.points.push_back(point).is_ok();
        debug_assert!(fits, "the place was promised");
    }

    /// The fence to wait for: the whole payload for point 0, else the point
    /// (`drm_syncobj_find_fence`).
    ///
    /// # Errors
    /// `EINVAL`: there is no fence, or the point is not submitted yet. `ENOMEM`.
    pub fn find(&self, seqno: u64, stub: &Arc<Fence>) -> Result<Arc<Fence>, Errno> {
        let pending = {
            let mut payload = self.payload.lock();
            payload.collect();
            if payload.is_empty() {
                return Err(Errno::INVAL);
            }
            let node = match seqno {
                0 => payload.points.len().checked_sub(1),
                _ => payload.find(seqno)?,
            };
            payload.pending(node)?
        };
        Ok(Fence::all_of(&pending, stub)?)
    }

    /// The last signalled point, or the last submitted one (`drm_syncobj_query_ioctl`); 0 for a
    /// binary payload or none.
    pub fn query(&self, last_submitted: bool) -> u64 {
        let mut payload = self.payload.lock();
        payload.collect();
        let Some(last) = payload.points.back() else { return 0 };
        if last_submitted {
            return last.seqno;
        }
        // After the collection the first of several points has not signalled.
        let blocked = payload.base.is_some()
            || payload.points.front().is_some_and(|first| first.context != last.context);
        let mut answer = None;
        for point in payload.points.iter().filter(|point| point.context == last.context) {
            let done = !blocked && point.fence.is_signalled();
            if !done {
                return answer.unwrap_or(point.prev_seqno);
            }
            answer = Some(point.seqno);
        }
        last.seqno
    }
}

impl Drop for Syncobj {
    fn drop(&mut self) {
        self.counters.dec(Counter::LiveSyncobjs);
    }
}
