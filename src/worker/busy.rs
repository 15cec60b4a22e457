//! Memory for busy sessions: their futures are kilobytes long, so they are boxed, and the boxes are used again. A busy
//! period costs no allocation, an idle connection holds none of it. A panic inside is caught here: it ends one session.

use std::cell::RefCell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

type Place<F> = Pin<Box<Option<F>>>;

/// Boxes for futures of one type.
#[derive(Debug)]
pub struct Places<F> {
    free: RefCell<Vec<Place<F>>>,
    kept: usize,
}

impl<F: Future> Places<F> {
    /// Keeps at most `kept` free boxes.
    pub fn new(kept: usize) -> Places<F> {
        Places { free: RefCell::new(Vec::new()), kept }
    }

    /// Puts a future into a box of the pool at once (no `async fn`: that would keep a copy of the future in the caller's)
    /// and returns what runs it. The output is `None` if it panicked; everything it held has been dropped then.
    pub fn run(&self, future: F) -> Run<'_, F> {
        let mut place = self.free.borrow_mut().pop().unwrap_or_else(|| Box::pin(None));
        place.as_mut().set(Some(future));
        Run { places: self, place: Some(place) }
    }
}

/// A future that runs in a pooled box.
#[derive(Debug)]
pub struct Run<'a, F: Future> {
    places: &'a Places<F>,
    place: Option<Place<F>>,
}

impl<F: Future> Run<'_, F> {
    fn give_back(&mut self) {
        let Some(mut place) = self.place.take() else { return };
        place.as_mut().set(None);
        let mut free = self.places.free.borrow_mut();
        if free.len() < self.places.kept {
            free.push(place);
        }
    }
}

impl<F: Future> Future for Run<'_, F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(future) = self.place.as_mut().and_then(|place| place.as_mut().as_pin_mut()) else {
            return Poll::Ready(None);
        };
        let output = match catch_unwind(AssertUnwindSafe(|| future.poll(cx))) {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(output)) => Some(output),
            Err(_) => None,
        };
        self.give_back();
        Poll::Ready(output)
    }
}

impl<F: Future> Drop for Run<'_, F> {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::ready;
    use std::task::Waker;

    fn finish<F: Future>(future: F) -> F::Output {
        match std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => output,
            Poll::Pending => unreachable!("the futures of these tests are ready"),
        }
    }

    #[test]
    fn boxes_are_used_again_up_to_the_limit() {
        let places = Places::new(1);
        assert_eq!(finish(places.run(ready(1))), Some(1));
        let first = std::ptr::from_ref(&*places.free.borrow()[0]);
        let (one, other) = (places.run(ready(2)), places.run(ready(3)));
        assert_eq!((finish(one), finish(other)), (Some(2), Some(3)));
        assert_eq!(places.free.borrow().len(), 1);
        assert!(std::ptr::eq(first, &*places.free.borrow()[0]));
    }

    #[test]
    fn a_panic_ends_one_future_only() {
        let places = Places::new(1);
        let session = |bad: bool| async move {
            if bad {
                std::panic::resume_unwind(Box::new("a bug"));
            }
            7
        };
        assert_eq!(finish(places.run(session(true))), None);
        assert_eq!(finish(places.run(session(false))), Some(7));
    }
}
