//! What the kernel is made to do with pages by itself, and what has come of it.

use super::actor::{Actor, Answer, Done};
use super::area::Piece;
use super::remote::RemoteClient;
use crate::lang::expect::Check;
use crate::lang::expr::Expr;
use crate::lang::kernel::KernelStep;
use crate::lang::step::Compare;
use crate::oracle::{Access, Denied, Grain};
use fencepost_fixtures::Errno;
use fencepost_fixtures::area::MmCall;
use fencepost_fixtures::told::Told;
use fencepost_fixtures::upkeep::{dump::CoreFile, khugepaged};
use std::time::{Duration, Instant};

const PAGE: u64 = 4096;

impl Actor<'_, '_> {
    pub(super) fn kernel_step(&mut self, step: &KernelStep) -> Done<Answer> {
        match step {
            KernelStep::Compact { part, pages, name } => {
                let piece = self.piece(part)?;
                let call = MmCall::Compact { addr: piece.addr, len: piece.len };
                match self.ask_mm(&piece.memory, "mm.compact", &call)? {
                    Ok(moved) => {
                        self.must("pages that moved", pages.as_ref(), moved)?;
                        self.keep(name.as_deref(), moved);
                        Ok(Ok(()))
                    }
                    Err(errno) => Ok(Err(errno)),
                }
            }
            KernelStep::Collapse { part, pages, timeout } => {
                let piece = self.piece(part)?;
                self.collapse(&piece, pages, *timeout)
            }
            KernelStep::Dump { part, lost, closed } => {
                let piece = self.piece(part)?;
                self.dump(&piece, lost.as_ref(), *closed)
            }
        }
    }

    /// Waits until khugepaged has been everywhere and has made so many huge pages.
    fn collapse(&mut self, piece: &Piece, pages: &Check, timeout: Duration) -> Done<Answer> {
        const LOOK_EVERY: Duration = Duration::from_millis(5);
        /// It may be in the middle of a scan when it is first asked.
        const SCANS: u64 = 2;
        let call = MmCall::Told { addr: piece.addr, len: piece.len, told: Told::Huge };
        let begun =
            khugepaged::Hurried::new().and_then(|hurried| Ok((hurried, khugepaged::scans()?)));
        let (_hurried, first) = match begun {
            Ok(begun) => begun,
            Err(errno) => return Ok(Err(errno)),
        };
        let start = Instant::now();
        loop {
            let been = khugepaged::scans().map(|scans| scans.wrapping_sub(first) >= SCANS);
            let told = self.ask_mm(&piece.memory, "mm.khugepaged", &call)?;
            let (been, huge) = match (been, told) {
                (Ok(been), Ok(huge)) => (been, huge),
                (Err(errno), _) | (_, Err(errno)) => return Ok(Err(errno)),
            };
            if been && self.check_value(pages, huge)?.is_none() {
                return Ok(Ok(()));
            }
            if start.elapsed() >= timeout {
                return Ok(Err(Errno::ETIME));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Has the process of a client die, and compares what the kernel has written of it with what was there.
    fn dump(&mut self, piece: &Piece, lost: Option<&Check>, closed: bool) -> Done<Answer> {
        let name = piece.memory.client.clone();
        let client = self.client_named(&name)?;
        let Some(remote) = client.handle.remote() else {
            return self.broken(&format!("client {name} has no process of its own"));
        };
        if closed && let Err(error) = remote.close_file() {
            return Ok(Err(error.errno));
        }
        let core = match CoreFile::of(remote.pid()) {
            Ok(core) => core,
            Err(errno) => return Ok(Err(errno)),
        };
        if let Err(errno) = self.end_process_of(&name, "process.dump", RemoteClient::crash)? {
            return Ok(Err(errno));
        }
        match core.read(piece.addr, piece.len) {
            Ok(Some(bytes)) => self.check_dump(piece, &bytes, lost),
            Ok(None) => self.fail("the dump", "one that has this memory", "it is not in there"),
            Err(error) => self.fail("the dump", "a file", &error.to_string()),
        }
    }

    fn check_dump(&mut self, piece: &Piece, bytes: &[u8], lost: Option<&Check>) -> Done<Answer> {
        let start = piece.addr - piece.memory.area.as_ref().map_or(0, |area| area.addr);
        let parts = self.stage.model().accessible(piece.mm, (piece.addr, piece.addr + piece.len));
        let readable = parts.iter().filter(|(.., access)| *access != Access::None);
        let pages: Vec<u64> =
            readable.flat_map(|(from, to, _)| (*from..*to).step_by(PAGE as usize)).collect();
        let mut holes = 0;
        for at in pages {
            let page = (at - piece.addr) as usize;
            let page = &bytes[page..page + PAGE as usize];
            // Words tell of a hole at once; a whole page that is wrong is looked at for long.
            let zeros = page.iter().all(|byte| *byte == 0);
            for (i, part) in page.chunks(if zeros { 8 } else { page.len() }).enumerate() {
                let offset = start + (at - piece.addr) + i as u64 * 8;
                match self.saw(&piece.memory, offset, part, Grain::Bulk)? {
                    Ok(()) => {}
                    Err(Denied::Value(_)) if zeros => {
                        holes += 1;
                        break;
                    }
                    Err(denied) => return self.denied("the dump's memory", denied),
                }
            }
        }
        let none = Check::Compare(Compare::Equal, Expr::Const(0));
        self.must("pages of which the dump has a hole", Some(lost.unwrap_or(&none)), holes)?;
        Ok(Ok(()))
    }
}
