//! One server process with its children, and the watcher that ends it if we cannot.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::{START_LIMIT, ServerError, poll_until};

/// Ends the server and removes its directory once standard input closes: when the test process is
/// gone, however it went. A signal at the parent's death (`PR_SET_PDEATHSIG`) would not do: it
/// comes when the *thread* that started the server ends.
///
/// SIGQUIT first, at which PostgreSQL gives its shared memory back.
const WATCHER: &str = r#"
children() {
    for stat in /proc/[0-9]*/stat; do
        read -r child _ _ parent _ <"$stat" && [ "$parent" = "$pid" ] && kill "$1" "$child"
    done
}
read -r pid || exit 0
read -r _
children -CONT
kill -CONT "$pid"
kill -QUIT "$pid"
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    kill -0 "$pid" || break
    sleep 0.1
done
if kill -STOP "$pid"; then
    children -KILL
    kill -KILL "$pid"
fi
rm -rf -- "$1"
"#;

const SIGNAL_LIMIT: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) struct Process {
    server: Child,
    watcher: Child,
}

impl Process {
    /// Starts `command` with its output appended to `log`; `dir` is removed with the server if
    /// this process is killed.
    pub(crate) fn spawn(command: &mut Command, dir: &Path, log: &Path) -> io::Result<Self> {
        let log = OpenOptions::new().create(true).append(true).open(log)?;
        let mut watcher = watcher(dir)?;
        let server = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .current_dir(dir)
            .process_group(0)
            .spawn();
        let mut server = match server {
            Ok(server) => server,
            Err(error) => {
                end(&mut watcher);
                return Err(error);
            }
        };
        let told = match &mut watcher.stdin {
            Some(input) => writeln!(input, "{}", server.id()),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        };
        if let Err(error) = told {
            end(&mut server);
            end(&mut watcher);
            return Err(error);
        }
        Ok(Self { server, watcher })
    }

    pub(crate) fn id(&self) -> u32 {
        self.server.id()
    }

    /// The process, once it answers.
    ///
    /// # Errors
    /// It ended before that, or took too long; then it is gone.
    pub(crate) fn once_ready(
        mut self,
        mut answers: impl FnMut() -> bool,
        program: &Path,
        log: &Path,
    ) -> Result<Self, ServerError> {
        let ready = poll_until(START_LIMIT, || {
            let answers = answers();
            (answers || self.has_ended()).then_some(answers)
        });
        let (program, text) = (program.to_owned(), || tail(log));
        match ready {
            Some(true) => Ok(self),
            Some(false) => Err(ServerError::Ended {
                program,
                log: text(),
            }),
            None => Err(ServerError::TimedOut {
                program,
                log: text(),
            }),
        }
    }

    fn has_ended(&mut self) -> bool {
        !matches!(self.server.try_wait(), Ok(None))
    }

    /// SIGKILL to the process and its children. It and they are gone when this returns.
    pub(crate) fn kill(mut self) {
        self.end_now();
    }

    fn end_now(&mut self) {
        if self.has_ended() {
            return end(&mut self.watcher);
        }
        // Stopped, it starts no more children, and its dead ones keep their ids.
        let mut children = Vec::new();
        if self.pause().is_ok() {
            children = children_of(self.id());
        }
        for &child in &children {
            let _may_have_ended = signal(child, Signal::KILL);
        }
        let _may_have_ended = self.server.kill();
        end(&mut self.watcher);
        let _reaped = self.server.wait();
        poll_until(SIGNAL_LIMIT, || {
            children.iter().all(|&child| is_gone(child)).then_some(())
        });
    }

    /// SIGQUIT, and SIGKILL if that does not help.
    pub(crate) fn quit(mut self) {
        let _may_have_ended = self.resume();
        let _may_have_ended = signal(self.id(), Signal::QUIT);
        poll_until(SIGNAL_LIMIT, || self.has_ended().then_some(()));
        self.end_now();
    }

    /// SIGSTOP to the process and its children. They stand still when this returns.
    pub(crate) fn pause(&self) -> io::Result<()> {
        stop(self.id())?;
        for child in children_of(self.id()) {
            match stop(child) {
                Err(error) if !is_gone(child) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// SIGCONT to the process and its children.
    pub(crate) fn resume(&self) -> io::Result<()> {
        for child in children_of(self.id()) {
            let _may_have_ended = signal(child, Signal::CONT);
        }
        signal(self.id(), Signal::CONT)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end_now();
    }
}

fn watcher(dir: &Path) -> io::Result<Child> {
    Command::new("/bin/sh")
        .args(["-c", WATCHER, "overdrive-testkit-watcher"])
        .arg(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
}

fn end(child: &mut Child) {
    let _may_have_ended = child.kill();
    let _reaped = child.wait();
}

fn signal(id: u32, signal: Signal) -> io::Result<()> {
    let id = i32::try_from(id).ok().and_then(Pid::from_raw);
    let id = id.ok_or(io::ErrorKind::InvalidInput)?;
    Ok(kill_process(id, signal)?)
}

fn stop(id: u32) -> io::Result<()> {
    signal(id, Signal::STOP)?;
    let stands = || {
        matches!(
            state_and_parent(id),
            None | Some(('T' | 't' | 'Z' | 'X', _))
        )
    };
    poll_until(SIGNAL_LIMIT, || stands().then_some(()))
        .ok_or_else(|| io::ErrorKind::TimedOut.into())
}

fn is_gone(id: u32) -> bool {
    matches!(state_and_parent(id), None | Some(('Z' | 'X', _)))
}

fn children_of(parent: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|&id| matches!(state_and_parent(id), Some((_, p)) if p == parent))
        .collect()
}

/// From `/proc/ID/stat`: `ID (NAME) STATE PARENT ...`, where the name may hold anything.
fn state_and_parent(id: u32) -> Option<(char, u32)> {
    let stat = io::read_to_string(File::open(format!("/proc/{id}/stat")).ok()?).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.next()?.parse().ok()?))
}

/// The last lines of a log.
fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::super::TempDir;
    use super::*;

    /// A shell with a child.
    fn family() -> (Process, TempDir) {
        let dir = TempDir::new().unwrap();
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", "sleep 1000 & wait"]);
        let process = Process::spawn(&mut shell, dir.path(), &dir.path().join("log")).unwrap();
        (process, dir)
    }

    fn only_child(process: &Process) -> u32 {
        poll_until(SIGNAL_LIMIT, || children_of(process.id()).first().copied()).unwrap()
    }

    #[test]
    fn a_kill_reaches_the_children() {
        let (process, _dir) = family();
        let (parent, child) = (process.id(), only_child(&process));
        process.kill();
        assert!(is_gone(parent) && is_gone(child));
    }

    #[test]
    fn a_pause_reaches_the_children_and_ends() {
        let (process, _dir) = family();
        let child = only_child(&process);
        process.pause().unwrap();
        assert_eq!(state_and_parent(process.id()).unwrap().0, 'T');
        assert_eq!(state_and_parent(child).unwrap().0, 'T');
        process.resume().unwrap();
        poll_until(SIGNAL_LIMIT, || {
            (state_and_parent(child)?.0 == 'S').then_some(())
        })
        .unwrap();
    }

    #[test]
    fn the_watcher_ends_the_server_when_we_are_gone() {
        let (mut process, dir) = family();
        let parent = process.id();
        // As if this process had been killed: the pipe closes.
        drop(process.watcher.stdin.take());
        poll_until(Duration::from_secs(20), || is_gone(parent).then_some(())).unwrap();
        poll_until(Duration::from_secs(20), || {
            (!dir.path().exists()).then_some(())
        })
        .unwrap();
    }
}
