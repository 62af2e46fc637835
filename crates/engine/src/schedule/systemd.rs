//! Units of systemd, with no more rights than a backup takes.

use std::fmt::Write as _;
use std::path::PathBuf;

use super::{Files, Planned, Request, command, on_calendar};
use crate::failure::{Failure, Outcome};

/// Where an administrator's units lie.
const UNITS: &str = "/etc/systemd/system";
/// How late a timer may be where no jitter is configured.
const SPREAD: &str = "2min";

/// What holds for a run and for the agent alike. Certificates of etcd belong to root, so it is root, that may read everything and little else.
const HARDENING: &str = "\
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=read-only
PrivateTmp=yes
PrivateDevices=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
StateDirectory=lifeboat
CacheDirectory=lifeboat
UMask=0077
Nice=10
IOSchedulingClass=idle
";

fn unit(name: &str, text: String) -> Planned {
    Planned { path: Some(PathBuf::from(UNITS).join(name)), text }
}

fn writable(request: &Request) -> String {
    // Directories that backups go to may belong to somebody else.
    let rights = if request.writable.is_empty() { "CAP_DAC_READ_SEARCH" } else { "CAP_DAC_READ_SEARCH CAP_DAC_OVERRIDE" };
    request.writable.iter().fold(format!("CapabilityBoundingSet={rights}\n"), |mut text, path| {
        // A dash before it: it may not be there yet.
        let _ = writeln!(text, "ReadWritePaths=-{}", path.display());
        text
    })
}

/// A oneshot service and its timer.
pub(super) fn timer(request: &Request) -> Outcome<Files> {
    let name = request.cluster.as_ref().map_or_else(|| "lifeboat".to_owned(), |cluster| format!("lifeboat-{cluster}"));
    let of = request.cluster.as_ref().map(|cluster| format!(" of {cluster}")).unwrap_or_default();
    let service = format!(
        "# Made by `lifeboat schedule timer`.\n# Verifications and drills are the agent's: lifeboat schedule agent.\n[Unit]\nDescription=Lifeboat: back etcd{of} up\nDocumentation=man:lifeboat-backup(1)\nWants=network-online.target\nAfter=network-online.target\n\n\
         [Service]\nType=oneshot\nExecStart={}\n# Committed, with warnings: it says which.\nSuccessExitStatus=3\nTimeoutStartSec=6h\n{HARDENING}{}",
        command(request).join(" "),
        writable(request)
    );
    let timer = format!(
        "# Made by `lifeboat schedule timer`.\n[Unit]\nDescription=Lifeboat: when etcd{of} is backed up\n\n[Timer]\n{}RandomizedDelaySec={}\n\n[Install]\nWantedBy=timers.target\n",
        moments(request)?,
        request.backup.jitter.as_deref().unwrap_or(SPREAD)
    );
    Ok(Files {
        files: vec![unit(&format!("{name}.service"), service), unit(&format!("{name}.timer"), timer)],
        then: vec!["systemctl daemon-reload".to_owned(), format!("systemctl enable --now {name}.timer")],
    })
}

/// The agent.
pub(super) fn agent(request: &Request) -> Files {
    let service = format!(
        "# Made by `lifeboat schedule agent`.\n[Unit]\nDescription=Lifeboat: backups of etcd on schedule\nDocumentation=man:lifeboat-agent(1)\nWants=network-online.target\nAfter=network-online.target\n\n\
         [Service]\nType=notify\nExecStart={} agent --config {}\nExecReload=/bin/kill -HUP $MAINPID\nRestart=always\nRestartSec=10s\nWatchdogSec=5min\n# Hooks and the etcd of a drill are the agent's to end.\nKillMode=mixed\n# What is under way may go on for agent.stop_within, and what is owed after it for a minute.\nTimeoutStopSec={}s\n{HARDENING}{}\n\
         [Install]\nWantedBy=multi-user.target\n",
        request.program.display(),
        request.config.display(),
        request.stop_seconds(),
        writable(request)
    );
    Files {
        files: vec![unit("lifeboat-agent.service", service)],
        then: vec!["systemctl daemon-reload".to_owned(), "systemctl enable --now lifeboat-agent.service".to_owned()],
    }
}

/// When the timer elapses. What was missed is caught up: a distance begins at boot, a calendar event is persistent.
fn moments(request: &Request) -> Outcome<String> {
    let Some(cron) = &request.backup.cron else {
        let every = request.backup.every.as_deref().unwrap_or("6h");
        return Ok(format!("OnBootSec=5min\nOnUnitActiveSec={every}\n"));
    };
    // As everywhere in the configuration: UTC where no zone is named, whatever the machine's is.
    let events = on_calendar(cron, Some(request.backup.timezone.as_deref().unwrap_or("UTC"))).map_err(|error| {
        Failure::usage(error.to_string())
            .cause("the agent keeps it as it is: lifeboat schedule agent")
            .next(["lifeboat", "schedule", "agent"])
    })?;
    Ok(events.iter().map(|event| format!("OnCalendar={event}\n")).collect::<String>() + "Persistent=true\n")
}

#[cfg(test)]
mod tests {
    use super::super::tests::request;
    use super::super::{Kind, files};
    use crate::config::Backup;

    #[test]
    fn a_timer_and_a_service() {
        let made = files(&request(Kind::Timer)).unwrap();
        let [service, timer] = made.files.as_slice() else { panic!("{made:?}") };
        assert!(service.text.contains("ExecStart=/usr/local/bin/lifeboat backup --config /etc/lifeboat/lifeboat.yaml --cluster prod\n"));
        assert!(service.text.contains("SuccessExitStatus=3\n") && service.text.contains("ReadWritePaths=-/var/backups/etcd\n"));
        assert!(timer.text.contains("OnUnitActiveSec=6h\n"));
        assert_eq!(timer.path.as_deref(), Some(std::path::Path::new("/etc/systemd/system/lifeboat-prod.timer")));
        let mut by_cron = request(Kind::Timer);
        by_cron.backup = Backup { cron: Some("30 2 * * *".to_owned()), timezone: Some("Europe/Berlin".to_owned()), ..Backup::default() };
        assert!(files(&by_cron).unwrap().files[1].text.contains("OnCalendar=*-*-* 2:30:00 Europe/Berlin\nPersistent=true\n"));
    }
}
