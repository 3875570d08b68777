//! Waits and signals of syncobjs, user fences and descriptors.

use super::actor::{Actor, Answer, Done, errno_name};
use super::stage::{Carries, SyncobjObject, find};
use crate::lang::expect::Check;
use crate::lang::step::{Compare, Point, Step, Wait, WordWait};
use crate::oracle;
use fencepost_fixtures::Errno;
use fencepost_fixtures::device as dev;
use fencepost_fixtures::sys::message::wait_readable;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

/// Points for the device and for the oracle.
type Points = (Vec<(dev::Syncobj, u64)>, Vec<oracle::Point>);

impl Actor<'_, '_> {
    /// The syncobj of that name.
    pub(super) fn syncobj(&mut self, name: &str) -> Done<Arc<SyncobjObject>> {
        match find(&self.stage.names.syncobjs, name) {
            Some(syncobj) => Ok(syncobj),
            None => self.broken(&format!("there is no syncobj {name}")),
        }
    }

    fn points(&mut self, points: &[Point]) -> Done<Points> {
        let mut handles = Vec::new();
        let mut known = Vec::new();
        for point in points {
            let (handle, (id, value)) = self.point(point)?;
            handles.push((handle, value));
            known.push((id, value));
        }
        Ok((handles, known))
    }

    pub(super) fn wait(&mut self, step: &Step, wait: &Wait) -> Done<Answer> {
        let (handles, known) = self.points(&wait.points)?;
        let client = self.client(step)?;
        let begun = self.stage.model().look();
        let call = dev::SyncobjWait {
            points: &handles,
            all: wait.all,
            for_submit: wait.for_submit,
            available: wait.available,
            timeout: wait.timeout,
        };
        match self.timed("sync.wait", || client.handle.syncobj_wait(&call)) {
            Err(error) => Ok(Err(error.errno)),
            Ok(_) if wait.available => Ok(Ok(())),
            Ok(first) => {
                let signalled = match wait.all {
                    true => known,
                    false => known.get(first as usize).copied().into_iter().collect(),
                };
                self.stage.model().waited(self.line, &signalled, begun);
                Ok(Ok(()))
            }
        }
    }

    pub(super) fn signal(&mut self, step: &Step, points: &[Point]) -> Done<Answer> {
        let (handles, known) = self.points(points)?;
        let client = self.client(step)?;
        let attaching: Vec<_> = {
            let mut model = self.stage.model();
            let fence = model.signal(self.line);
            known.iter().map(|point| model.attach_begin(*point, fence.clone())).collect()
        };
        let binary: Vec<dev::Syncobj> =
            handles.iter().filter(|(_, value)| *value == 0).map(|(handle, _)| *handle).collect();
        let with_points: Vec<(dev::Syncobj, u64)> =
            handles.iter().filter(|(_, value)| *value != 0).copied().collect();
        // A step names points or binary syncobjs; both together are two calls.
        let answer = self.timed("sync.signal", || {
            if !binary.is_empty() || with_points.is_empty() {
                client.handle.syncobj_signal(&binary)?;
            }
            match with_points.is_empty() {
                true => Ok(()),
                false => client.handle.timeline_signal(&with_points),
            }
        });
        let mut model = self.stage.model();
        attaching.into_iter().for_each(|a| model.attach_end(a, answer.is_ok()));
        Ok(answer.map_err(|error| error.errno))
    }

    pub(super) fn reset(&mut self, step: &Step, names: &[String]) -> Done<Answer> {
        let mut handles = Vec::new();
        let mut attaching = Vec::new();
        for name in names {
            let syncobj = self.syncobj(name)?;
            handles.push(syncobj.handle);
            attaching.push(self.stage.model().reset_begin(syncobj.id));
        }
        let client = self.client(step)?;
        let answer = self.timed("sync.reset", || client.handle.syncobj_reset(&handles));
        let mut model = self.stage.model();
        attaching.into_iter().for_each(|a| model.attach_end(a, answer.is_ok()));
        Ok(answer.map_err(|error| error.errno))
    }

    pub(super) fn query(&mut self, step: &Step, queries: &[(String, Check)]) -> Done<Answer> {
        let client = self.client(step)?;
        for (name, check) in queries {
            match self.timeline(&client.handle, name)? {
                Ok(value) => self.must(&format!("value of {name}"), Some(check), value)?,
                Err(errno) => return Ok(Err(errno)),
            }
        }
        Ok(Ok(()))
    }

    /// A timeline's value, checked by the oracle.
    pub(super) fn timeline(
        &mut self,
        client: &super::view::ClientHandle,
        name: &str,
    ) -> Done<Result<u64, Errno>> {
        let syncobj = self.syncobj(name)?;
        let begun = self.stage.model().look();
        let handle = [syncobj.handle];
        let values = match self.timed("sync.query", || client.timeline_query(&handle, false)) {
            Ok(values) => values,
            Err(error) => return Ok(Err(error.errno)),
        };
        let Some(value) = values.first().copied() else {
            return self.fail("query of a timeline", "one value", "none");
        };
        let (low, high) = self.stage.model().timeline_bounds(self.line, syncobj.id, begun);
        if value < low || value > high {
            let what = format!("value of timeline {name}");
            let expected = format!("from {low} (known to be signalled) to {high} (attached)");
            return self.fail(&what, &expected, &value.to_string());
        }
        Ok(Ok(value))
    }

    pub(super) fn transfer(
        &mut self,
        step: &Step,
        from: &Point,
        to: &Point,
        for_submit: bool,
    ) -> Done<Answer> {
        let (source, (source_id, source_point)) = self.point(from)?;
        let (target, target_known) = self.point(to)?;
        let client = self.client(step)?;
        let (begun, attaching) = {
            let mut model = self.stage.model();
            let begun = model.look();
            let fence = match for_submit {
                // Which fence comes is not known yet, but it is attached after this.
                true => model.signal(self.line),
                false => model.fence((source_id, source_point), begun),
            };
            (begun, model.attach_begin(target_known, fence))
        };
        let answer = self.timed("sync.transfer", || {
            let (from, to) = ((source, source_point), (target, target_known.1));
            client.handle.syncobj_transfer(from, to, for_submit)
        });
        debug_assert!(begun > 0, "the oracle's time has begun");
        self.stage.model().attach_end(attaching, answer.is_ok());
        Ok(answer.map_err(|error| error.errno))
    }

    pub(super) fn wait_user_fence(&mut self, step: &Step, wait: &WordWait) -> Done<Answer> {
        let (memory, offset) = self.cpu_place(&wait.at)?;
        let value = self.value(&wait.value)?;
        let mask = match &wait.mask {
            Some(mask) => self.value(mask)?,
            None => u64::MAX,
        };
        let queue = match &wait.queue {
            Some(name) => find(&self.stage.names.queues, name).map(|queue| queue.queue),
            None => None,
        };
        let view = match self.view(&memory)? {
            Ok(view) => view,
            Err(errno) => return Ok(Err(errno)),
        };
        let op = match wait.compare {
            Compare::Equal => dev::WaitOp::Eq,
            Compare::NotEqual => dev::WaitOp::Neq,
            Compare::Less => dev::WaitOp::Lt,
            Compare::LessEqual => dev::WaitOp::Lte,
            Compare::Greater => dev::WaitOp::Gt,
            Compare::GreaterEqual => dev::WaitOp::Gte,
        };
        let call = dev::UserFenceWait {
            addr: view.addr().wrapping_add(offset),
            op,
            value,
            mask,
            queue,
            timeout: wait.timeout,
            absolute: false,
        };
        let client = self.client(step)?;
        if let Err(error) = self.timed("sync.user_fence", || client.handle.user_fence_wait(&call)) {
            return Ok(Err(error.errno));
        }
        let Ok(seen) = view.load(offset, dev::Width::U64) else {
            return Ok(Err(Errno::EFAULT));
        };
        if !super::actor::holds(wait.compare, seen & mask, value) {
            // Another write may have come since; the oracle cannot tell what was seen.
            return Ok(Ok(()));
        }
        self.acquired(&memory, offset, seen)?;
        Ok(Ok(()))
    }

    pub(super) fn poll(&mut self, name: &str, timeout: Duration, ready: bool) -> Done<Answer> {
        let Some(fd) = find(&self.stage.names.fds, name) else {
            return self.broken(&format!("there is no fd {name}"));
        };
        let polled = self.timed("sync.poll", || wait_readable(fd.fd.as_fd(), timeout));
        let seen = match polled {
            Ok(()) => true,
            Err(Errno::ETIME) => false,
            Err(errno) => return Ok(Err(errno)),
        };
        if seen != ready {
            let text = |ready| if ready { "readable" } else { "not readable" };
            return self.fail(&format!("poll of {name}"), text(ready), text(seen));
        }
        if let (true, Carries::SyncFile(fence)) = (seen, &fd.carries) {
            self.stage.model().waited_fence(self.line, fence);
        }
        Ok(Ok(()))
    }

    /// Checks whether a syncobj is signalled, by a wait without time-out, or what its value is.
    pub(super) fn check_syncobj(
        &mut self,
        name: &str,
        signalled: Option<bool>,
        value: Option<&Check>,
    ) -> Done {
        let syncobj = self.syncobj(name)?;
        let client = self.client_named(&syncobj.client)?;
        if let Some(expected) = signalled {
            let points = [(syncobj.handle, 0)];
            let call = dev::SyncobjWait {
                points: &points,
                all: true,
                for_submit: false,
                available: false,
                timeout: Duration::ZERO,
            };
            let seen = match client.handle.syncobj_wait(&call) {
                Ok(_) => true,
                // No fence at all is not signalled either.
                Err(error) if matches!(error.errno, Errno::ETIME | Errno::EINVAL) => false,
                Err(error) => {
                    let what = format!("look at {name}");
                    return self.fail(&what, "success", &errno_name(error.errno));
                }
            };
            if seen != expected {
                let text = |on| if on { "signalled" } else { "not signalled" };
                return self.fail(&format!("syncobj {name}"), text(expected), text(seen));
            }
        }
        if let Some(check) = value {
            match self.timeline(&client.handle, name)? {
                Ok(seen) => self.must(&format!("value of timeline {name}"), Some(check), seen)?,
                Err(errno) => {
                    return self.fail(&format!("query of {name}"), "success", &errno_name(errno));
                }
            }
        }
        Ok(())
    }
}
