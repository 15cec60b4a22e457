//! Memory for busy sessions: their futures are kilobytes long, so they are boxed, run for ever, and take one busy period
//! after the other from a mailbox. A busy period neither allocates nor moves such a future, an idle connection holds none
//! of it. A panic inside is caught here: it ends one session.

use super::net::cache::prefetch;
use crate::limits;
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

/// How a future in a box gets its work and gives its results: at most one of each at a time.
pub struct Mailbox<A, B> {
    work: Cell<Option<A>>,
    result: Cell<Option<B>>,
}

impl<A, B> Mailbox<A, B> {
    /// Waits for work. Whoever puts it in polls the future, so no waker is kept.
    pub async fn next(&self) -> A {
        poll_fn(|_| self.work.take().map_or(Poll::Pending, Poll::Ready)).await
    }

    /// Gives the result; the future is not polled again before there is more work.
    pub fn done(&self, result: B) {
        self.result.set(Some(result));
    }
}

struct Place<A, B, F> {
    mailbox: Rc<Mailbox<A, B>>,
    future: Pin<Box<F>>,
}

/// Makes a future that works for a mailbox.
type Make<A, B, F> = Box<dyn Fn(Rc<Mailbox<A, B>>) -> F>;

/// Boxes of futures that work for ever, made by one function.
pub struct Places<A, B, F> {
    make: Make<A, B, F>,
    free: RefCell<Vec<Place<A, B, F>>>,
    /// The least number that was free since the last [`Places::spare`].
    least_free: Cell<usize>,
}

impl<A, B, F: Future<Output = ()>> Places<A, B, F> {
    /// Boxes for what `make` makes; none yet.
    pub fn new(make: impl Fn(Rc<Mailbox<A, B>>) -> F + 'static) -> Self {
        Places { make: Box::new(make), free: RefCell::new(Vec::new()), least_free: Cell::new(0) }
    }

    /// Has one piece of work done. The output is `None` if that panicked; everything it held has been dropped then.
    pub fn run(&self, work: A) -> Run<'_, A, B, F> {
        let free = self.free.borrow_mut().pop();
        self.least_free.set(self.least_free.get().min(self.free.borrow().len()));
        let place = free.unwrap_or_else(|| {
            let mailbox = Rc::new(Mailbox { work: Cell::new(None), result: Cell::new(None) });
            Place { future: Box::pin((self.make)(mailbox.clone())), mailbox }
        });
        place.mailbox.work.set(Some(work));
        Run { places: self, place: Some(place) }
    }

    /// Half of the boxes that nobody needed since the last call.
    pub fn spare(&self) -> usize {
        let free = self.free.borrow().len();
        let spare = self.least_free.get().min(free).div_ceil(2);
        self.least_free.set(free - spare);
        spare
    }

    /// Frees so many boxes, if there are as many that nobody uses.
    pub fn free(&self, n: usize) {
        let mut free = self.free.borrow_mut();
        let n = n.min(free.len());
        free.drain(..n);
    }
}

/// Work under way in a pooled box.
pub struct Run<'a, A, B, F: Future<Output = ()>> {
    places: &'a Places<A, B, F>,
    place: Option<Place<A, B, F>>,
}

// Nothing in it is pinned in place: the future has its own box.
impl<A, B, F: Future<Output = ()>> Unpin for Run<'_, A, B, F> {}

impl<A, B, F: Future<Output = ()>> Future for Run<'_, A, B, F> {
    type Output = Option<B>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<B>> {
        let Some(place) = &mut self.place else { return Poll::Ready(None) };
        prefetch(&*place.future, limits::SESSION_HOT_BYTES);
        let polled = catch_unwind(AssertUnwindSafe(|| place.future.as_mut().poll(cx)));
        let result = place.mailbox.result.take();
        match (polled, result) {
            (Ok(Poll::Pending), None) => Poll::Pending,
            (Ok(Poll::Pending), result) => {
                self.places.free.borrow_mut().extend(self.place.take());
                Poll::Ready(result)
            }
            (Ok(Poll::Ready(())) | Err(_), result) => {
                self.place = None;
                Poll::Ready(result)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    fn finish<F: Future>(future: F) -> F::Output {
        match std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => output,
            Poll::Pending => unreachable!("the futures of these tests are ready"),
        }
    }

    async fn double(mailbox: Rc<Mailbox<u32, u32>>) {
        loop {
            let n = mailbox.next().await;
            if n == 13 {
                std::panic::resume_unwind(Box::new("a bug"));
            }
            mailbox.done(2 * n);
        }
    }

    #[test]
    fn boxes_are_used_again_and_trimmed_when_not_needed() {
        let places = Places::new(double);
        assert_eq!(finish(places.run(1)), Some(2));
        let (one, other) = (places.run(2), places.run(3));
        assert_eq!(places.free.borrow().len(), 0);
        assert_eq!((finish(one), finish(other)), (Some(4), Some(6)));
        assert_eq!(places.free.borrow().len(), 2);
        places.free(places.spare());
        assert_eq!(places.free.borrow().len(), 2, "both were needed");
        places.free(places.spare());
        places.free(places.spare());
        assert_eq!(places.free.borrow().len(), 0);
    }

    #[test]
    fn a_panic_ends_one_piece_of_work_only() {
        let places = Places::new(double);
        assert_eq!(finish(places.run(13)), None);
        assert_eq!(places.free.borrow().len(), 0);
        assert_eq!(finish(places.run(4)), Some(8));
    }
}
