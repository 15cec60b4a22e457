//! One instance per control socket: a lock beside it, which the kernel lets go of when its holder ends, however it ends.

use crate::worker::net::unix;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The lock, held as long as this lives. The file stays: removing it would let two holders have one each.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// `SOCKET.lock`.
pub fn path_beside(socket: &Path) -> PathBuf {
    let mut path = socket.as_os_str().to_owned();
    path.push(".lock");
    path.into()
}

impl Lock {
    /// Takes the lock beside this socket.
    ///
    /// # Errors
    /// `AddrInUse` names the process that holds it; everything else is about the file.
    pub fn take(socket: &Path) -> io::Result<Lock> {
        let path = path_beside(socket);
        let said = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path)
            .map_err(said)?;
        if let Err(e) = unix::try_lock(&file) {
            if e.kind() != io::ErrorKind::WouldBlock {
                return Err(said(e));
            }
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            let holder = holder.trim();
            let who = if holder.is_empty() { String::new() } else { format!(" (process {holder})") };
            let why = format!("another instance of ringway{who} runs with the control socket {}", socket.display());
            return Err(io::Error::new(io::ErrorKind::AddrInUse, why));
        }
        // The number is for people; the lock holds without it.
        let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Lock { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_told_who_the_first_is() {
        let socket = std::env::temp_dir().join(format!("ringway-lock-{}", std::process::id()));
        let first = Lock::take(&socket).expect("free");
        let refused = Lock::take(&socket).expect_err("held");
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        assert!(refused.to_string().contains(&format!("(process {})", std::process::id())), "{refused}");
        drop(first);
        Lock::take(&socket).expect("free again, with the file still there");
        std::fs::remove_file(path_beside(&socket)).expect("there");
        assert!(Lock::take(Path::new("/nonexistent/x")).is_err());
    }
}
