//! What must hold: `expect`, `check`, counters and evidence.

use super::actor::{Actor, Done, errno_name, symbol};
use super::bind::{compare_rows, region, sample};
use super::stage::{VmObject, all, find};
use crate::lang::expect::{Bound, Check, Expect, ExpectKind, FaultExpect, Mapping, Reader, Target};
use crate::lang::step::{Place, Width};
use crate::oracle::Grain;
use fencepost_fixtures::Errno;
use fencepost_fixtures::device as dev;
use fencepost_results::{Evidence, Report};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Actor<'_, '_> {
    /// Checks expectations, those about counters first, as looking at the others moves some.
    pub(super) fn check_all(&mut self, expects: &[Expect]) -> Done {
        let about_counters = |expect: &&Expect| matches!(expect.kind, ExpectKind::Counters(_));
        let (first, rest): (Vec<&Expect>, Vec<&Expect>) = expects.iter().partition(about_counters);
        for expect in first.into_iter().chain(rest) {
            self.origin = self.origin_of(expect.span, expect.line);
            self.check(expect)?;
        }
        Ok(())
    }

    fn check(&mut self, expect: &Expect) -> Done {
        match &expect.kind {
            ExpectKind::Value { at, width, check, by } => self.check_word(at, *width, check, *by),
            ExpectKind::Maps { vm, maps, within, read, holes } => {
                let client = self.client.clone();
                let vm = self.vm(&client, vm.as_deref())?;
                let within = match within {
                    Some((start, end)) => (self.value(start)?, self.value(end)?),
                    None => (0, u64::MAX),
                };
                self.check_maps(&vm, maps, within)?;
                self.read_maps(&vm, maps, *read, *holes)
            }
            ExpectKind::Faults { vm, faults } => {
                let client = self.client.clone();
                let vm = self.vm(&client, vm.as_deref())?;
                self.check_faults(&vm, faults)
            }
            ExpectKind::Queue { name, banned, resets, submitted, completed } => {
                let checks = [
                    ("resets", resets.as_ref()),
                    ("jobs submitted", submitted.as_ref()),
                    ("jobs completed", completed.as_ref()),
                ];
                self.check_queue(name, *banned, checks)
            }
            ExpectKind::VmBanned { name, banned } => self.check_vm_banned(name, *banned),
            ExpectKind::Syncobj { name, signalled, value } => {
                self.check_syncobj(name, *signalled, value.as_ref())
            }
            ExpectKind::Resident { memory, region } => self.check_resident(memory, *region),
            ExpectKind::Counters(bounds) => self.check_counters(bounds),
            ExpectKind::Sees(sees) => self.check_sees(sees),
            ExpectKind::Pages(pages) => self.check_pages(pages),
            ExpectKind::Attributes { part, vm, attributes } => {
                self.check_attributes(part, vm.as_deref(), attributes)
            }
            ExpectKind::FaultBuffer { pending, paused } => {
                self.check_fault_buffer(pending.as_ref(), *paused)
            }
            ExpectKind::Always(condition) => self.in_each_set(condition, true),
            ExpectKind::Never(condition) => self.in_each_set(condition, false),
            ExpectKind::Sometimes(condition) => {
                let held = self.holds_in_some_set(condition)?;
                let mut all = self.stage.sometimes.lock().unwrap_or_else(|p| p.into_inner());
                *all.entry(expect.line).or_default() |= held;
                Ok(())
            }
        }
    }

    // ---- values ----------------------------------------------------------------------------

    fn check_word(&mut self, at: &Place, width: Width, check: &Check, by: Reader) -> Done {
        let bytes = super::cpu::width(width);
        let mut read = false;
        if by != Reader::Gpu
            && let Place::Memory { .. } = at
        {
            let (memory, offset) = self.cpu_place(at)?;
            let view = self.view_or_fail(&memory)?;
            let seen = match view.load(offset, bytes) {
                Ok(seen) => seen,
                Err(error) => return self.fail("CPU read", "success", &error.to_string()),
            };
            let word = &seen.to_le_bytes()[..bytes.bytes() as usize];
            let allowed = self.saw(&memory, offset, word, Grain::Word)?;
            let what = format!("{} at byte {offset:#x}, read by the CPU", memory.name);
            self.must(&what, Some(check), seen)?;
            if let Err(denied) = allowed {
                return self.denied("CPU read", denied);
            }
            read = true;
        }
        if by != Reader::Cpu
            && let Some((vm, addr)) = self.reachable(at, by)?
        {
            // Whole words are read; narrower ones are cut out.
            let lead = addr & 7;
            let seen = self.probe(&vm, &[addr - lead])?.first().copied().unwrap_or(0);
            let seen = bytes.mask(seen >> (lead * 8));
            self.must(&format!("word at {addr:#x}, read by the GPU"), Some(check), seen)?;
            read = true;
        }
        match read {
            true => Ok(()),
            false => self.broken("a word that neither CPU nor GPU can read"),
        }
    }

    /// Where the GPU finds a place, if it can and shall look there.
    fn reachable(&mut self, at: &Place, by: Reader) -> Done<Option<(Arc<VmObject>, u64)>> {
        match at {
            Place::Address(addr) => {
                let client = self.client.clone();
                let addr = self.value(addr)?;
                Ok(Some((self.vm(&client, None)?, addr)))
            }
            Place::Memory { name, offset } => {
                let offset = self.value(offset)?;
                let memory = self.memory(name)?;
                if let Some(area) = &memory.area {
                    return self.reachable_cpu(&memory, area.addr + offset);
                }
                let Some((vm, addr)) = &memory.home else { return Ok(None) };
                let Some(vm) = find(&self.stage.names.vms, vm) else { return Ok(None) };
                let addr = addr.wrapping_add(offset);
                // By both: only where it is still mapped at home.
                let mapped = {
                    let model = self.stage.model();
                    let object = model.layout(vm.space).mappings(addr, addr + 1).next();
                    object.is_some_and(|(.., m)| {
                        m.object == Some((memory.object, offset.wrapping_sub(addr)))
                    })
                };
                Ok((mapped || by == Reader::Gpu).then_some((vm, addr)))
            }
        }
    }

    // ---- mappings --------------------------------------------------------------------------

    fn check_maps(&mut self, vm: &VmObject, maps: &[Mapping], within: (u64, u64)) -> Done {
        let dump = self.va_dump(vm)?;
        let inside =
            |m: &&dev::Mapping| m.addr < within.1 && within.0 < m.addr.saturating_add(m.range);
        let dump: Vec<&dev::Mapping> = dump.iter().filter(inside).collect();
        let mut expected = Vec::new();
        for mapping in maps {
            expected.push(self.map_line(vm, mapping, None)?);
        }
        let mut seen = Vec::new();
        for (index, mapping) in dump.iter().enumerate() {
            // What the scenario does not state is taken as it is.
            seen.push(self.dump_line(vm, mapping, maps.get(index)));
        }
        if expected == seen {
            return Ok(());
        }
        let mut failure = compare_rows(&expected, &seen, &|line: &String| line.clone());
        failure.what = format!("mappings of VM {}", vm.name);
        self.fail_with(failure)
    }

    /// An expected mapping in words, which are compared.
    fn map_line(&mut self, vm: &VmObject, mapping: &Mapping, at: Option<u64>) -> Done<String> {
        let (addr, size) = (self.value(&mapping.addr)?, self.value(&mapping.size)?);
        let what = match &mapping.target {
            Target::Memory { name, offset } => {
                let offset = self.value(offset)?;
                let memory = self.memory(name)?;
                format!("{} from {offset:#x}", self.stage.object_name(memory.object))
            }
            Target::Null => "NULL".to_owned(),
            Target::Sparse => "sparse region".to_owned(),
            Target::CpuMirror => "CPU mirror".to_owned(),
        };
        let mut line =
            format!("{:#x} to {:#x} {what}", at.unwrap_or(addr), addr.wrapping_add(size));
        if mapping.readonly {
            line.push_str(" read-only");
        }
        let kind = self.value(&mapping.kind)?;
        if kind != 0 {
            line.push_str(&format!(" kind {kind}"));
        }
        if let Some(ptes) = &mapping.ptes {
            let [large, middle, small] = ptes;
            let counts = [self.value(large)?, self.value(middle)?, self.value(small)?];
            line.push_str(&ptes_text(counts));
        }
        if let Some(page) = &mapping.pages {
            let page = self.value(page)?;
            let count = |bytes: u64| if bytes == page { size / bytes } else { 0 };
            line.push_str(&ptes_text([count(2 << 20), count(64 << 10), count(4 << 10)]));
        }
        if let Some(preferred) = &mapping.preferred {
            line.push_str(&preferred_text(preferred.map(region)));
        }
        debug_assert!(!vm.name.is_empty(), "a VM has a name");
        Ok(line)
    }

    fn dump_line(&self, vm: &VmObject, mapping: &dev::Mapping, like: Option<&Mapping>) -> String {
        let mut line = self.row_text(&self.seen_row(vm, mapping));
        if like.is_some_and(|like| like.ptes.is_some() || like.pages.is_some()) {
            let [small, middle, large] = mapping.ptes.map(u64::from);
            line.push_str(&ptes_text([large, middle, small]));
        }
        if like.is_some_and(|like| like.preferred.is_some()) {
            line.push_str(&preferred_text(mapping.preferred));
        }
        line
    }

    fn read_maps(&mut self, vm: &Arc<VmObject>, maps: &[Mapping], read: bool, holes: bool) -> Done {
        let mut addrs = Vec::new();
        let mut edges = Vec::new();
        for mapping in maps {
            let (addr, size) = (self.value(&mapping.addr)?, self.value(&mapping.size)?);
            let end = addr.wrapping_add(size);
            addrs.extend(sample(addr, end));
            edges.extend(addr.checked_sub(8));
            edges.push(end);
        }
        if read && !addrs.is_empty() {
            self.probe(vm, &addrs)?;
        }
        if holes {
            let free: Vec<u64> = {
                let model = self.stage.model();
                let layout = model.layout(vm.space);
                let empty = |addr: &u64| {
                    layout.contains(*addr, 8)
                        && layout.mappings(*addr, addr + 8).next().is_none()
                        && !layout.sparse_regions().any(|(a, b)| a < addr + 8 && *addr < b)
                };
                edges.into_iter().filter(empty).collect()
            };
            for addr in free {
                self.probe_fault(vm, addr)?;
            }
        }
        Ok(())
    }

    // ---- faults, queues, VMs ---------------------------------------------------------------

    fn check_faults(&mut self, vm: &VmObject, expected: &[FaultExpect]) -> Done {
        let client = self.client_named(&vm.client)?;
        let log = match client.handle.faults(vm.vm, false) {
            Ok(log) => log,
            Err(error) => return self.fail("fault report", "success", &error.to_string()),
        };
        let before = vm.faults_before.load(Ordering::SeqCst) as usize;
        let seen: Vec<dev::Fault> = log.faults.into_iter().skip(before).collect();
        if seen.len() != expected.len() {
            let list: Vec<String> = seen.iter().map(super::gpu::fault_text).collect();
            let what = format!("faults of VM {}", vm.name);
            let seen = format!("{}: {}", seen.len(), list.join("; "));
            return self.fail(&what, &expected.len().to_string(), &seen);
        }
        for (expect, fault) in expected.iter().zip(&seen) {
            self.judge_fault(expect, fault)?;
        }
        Ok(())
    }

    fn check_queue(
        &mut self,
        name: &str,
        banned: Option<bool>,
        checks: [(&str, Option<&Check>); 3],
    ) -> Done {
        let Some(queue) = find(&self.stage.names.queues, name) else {
            return self.broken(&format!("there is no queue {name}"));
        };
        let client = self.client_named(&queue.client)?;
        let info = match client.handle.queue_info(queue.queue) {
            Ok(info) => info,
            Err(error) => return self.fail("state of a queue", "success", &error.to_string()),
        };
        if let Some(banned) = banned.filter(|banned| *banned != info.banned) {
            let text = |banned| if banned { "banned" } else { "active" };
            return self.fail(&format!("queue {name}"), text(banned), text(info.banned));
        }
        let values = [u64::from(info.resets), info.submitted, info.completed];
        for ((what, check), value) in checks.into_iter().zip(values) {
            self.must(&format!("{what} of queue {name}"), check, value)?;
        }
        Ok(())
    }

    fn check_vm_banned(&mut self, name: &str, banned: bool) -> Done {
        let client = self.client.clone();
        let vm = self.vm(&client, Some(name))?;
        let client = self.client_named(&vm.client)?;
        let call = dev::BindCall::sync(vm.vm, []);
        let seen = client.handle.bind(&call).map_err(|error| error.errno);
        match (seen, banned) {
            (Ok(()), false) | (Err(Errno::ENOENT), true) => Ok(()),
            (Err(errno), _) => self.fail(&format!("VM {name}"), "active", &errno_name(errno)),
            (Ok(()), true) => self.fail(&format!("VM {name}"), "banned (ENOENT)", "active"),
        }
    }

    // ---- counters --------------------------------------------------------------------------

    /// The device's counters now.
    pub(super) fn counters(&mut self) -> Done<BTreeMap<String, u64>> {
        let client = all(&self.stage.names.clients).into_iter().find(|client| !client.beside);
        let Some(client) = client else { return Ok(BTreeMap::new()) };
        match client.handle.counters() {
            Ok(counters) => Ok(counters),
            Err(error) => self.fail("device counters", "success", &error.to_string()),
        }
    }

    /// How much a counter has moved; `live.*` ones as they are. None: the device has none of it.
    fn growth(&self, now: &BTreeMap<String, u64>, counter: &str) -> Option<i128> {
        let value = i128::from(*now.get(counter)?);
        if counter.starts_with("live.") {
            return Some(value);
        }
        let base = self.stage.base.lock().unwrap_or_else(|p| p.into_inner());
        Some(value - i128::from(base.get(counter).copied().unwrap_or(0)))
    }

    fn check_counters(&mut self, bounds: &[Bound]) -> Done {
        let now = self.counters()?;
        for bound in bounds {
            let grown = self.growth(&now, &bound.counter);
            let Some(seen) = grown.and_then(|grown| u64::try_from(grown).ok()) else {
                let what = format!("counter {}", bound.counter);
                return self.fail(&what, "a count", "the device has none");
            };
            let what = format!("growth of counter {}", bound.counter);
            self.must(&what, Some(&bound.check), seen)?;
        }
        Ok(())
    }

    /// Reports evidence; gives what was missing.
    pub(super) fn weigh_evidence(
        &mut self,
        bounds: &[Bound],
        now: &BTreeMap<String, u64>,
    ) -> Done<Vec<String>> {
        let mut missing = Vec::new();
        // What a driver does not count says nothing for or against; something else must then have moved.
        let grown = |bound: &Bound| self.growth(now, &bound.counter);
        let something_moved = bounds.iter().any(|bound| grown(bound).is_some_and(|by| by > 0));
        let uncounted: Vec<bool> = bounds.iter().map(|bound| grown(bound).is_none()).collect();
        for (bound, uncounted) in bounds.iter().zip(uncounted) {
            if uncounted && something_moved {
                continue;
            }
            let seen = self.growth(now, &bound.counter).unwrap_or(0);
            let met = match u64::try_from(seen) {
                Ok(seen) => self.check_value(&bound.check, seen)?.is_none(),
                Err(_) => false,
            };
            let wanted = self.check_text(&bound.check)?;
            if !met {
                let what = format!("{} moved by {seen}, wanted {wanted}", bound.counter);
                missing.push(if uncounted { format!("{what} (not counted)") } else { what });
            }
            (self.stage.sink)(Report::Evidence(Evidence {
                counter: bound.counter.clone(),
                wanted,
                seen: i64::try_from(seen).unwrap_or(i64::MAX),
                met,
            }));
        }
        Ok(missing)
    }

    fn check_text(&mut self, check: &Check) -> Done<String> {
        Ok(match check {
            Check::Compare(compare, expr) => format!("{} {}", symbol(*compare), self.value(expr)?),
            Check::In(exprs) => {
                let values = self.values(exprs)?;
                let list: Vec<String> = values.iter().map(u64::to_string).collect();
                format!("one of {}", list.join(", "))
            }
            Check::Between(low, high) => format!("{} to {}", self.value(low)?, self.value(high)?),
        })
    }

    // ---- conditions over named results -----------------------------------------------------

    /// The sets of results that were read in one repetition each.
    fn sets(&mut self) -> Vec<BTreeMap<String, u64>> {
        let results = self.stage.results.lock().unwrap_or_else(|p| p.into_inner());
        let longest = results.values().map(Vec::len).max().unwrap_or(0);
        (0..longest)
            .map(|index| {
                let pick = |(name, values): (&String, &Vec<u64>)| {
                    // A result that was read once belongs to every set.
                    let value = if values.len() == 1 { values.first() } else { values.get(index) };
                    value.map(|value| (name.clone(), *value))
                };
                results.iter().filter_map(pick).collect()
            })
            .collect()
    }

    fn in_each_set(&mut self, condition: &crate::lang::expr::Expr, must: bool) -> Done {
        for set in self.sets() {
            self.vars.extend(set.iter().map(|(name, value)| (name.clone(), *value)));
            let holds = self.value(condition)? != 0;
            if holds != must {
                let values: Vec<String> =
                    set.iter().map(|(name, value)| format!("{name} = {value:#x}")).collect();
                let expected = if must { "to hold" } else { "never to hold" };
                return self.fail(&format!("condition {condition}"), expected, &values.join(", "));
            }
        }
        Ok(())
    }

    fn holds_in_some_set(&mut self, condition: &crate::lang::expr::Expr) -> Done<bool> {
        let mut held = false;
        for set in self.sets() {
            self.vars.extend(set);
            held |= self.value(condition)? != 0;
        }
        Ok(held)
    }
}

fn ptes_text([large, middle, small]: [u64; 3]) -> String {
    format!(" by {large} entries of 2M, {middle} of 64K, {small} of 4K")
}

fn preferred_text(region: Option<dev::Region>) -> String {
    region.map_or_else(|| " preferring nothing".to_owned(), |r| format!(" preferring {r:?}"))
}
