//! Manifests of Kubernetes: a CronJob, or the agent as a Deployment, on the nodes that have what a backup needs.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::{Files, Planned, Request, five_fields};
use crate::failure::{Failure, Outcome};

/// How the cluster was set up: it says where etcd's certificates are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Distribution {
    /// kubeadm: certificates in `/etc/kubernetes/pki/etcd`.
    #[default]
    Kubeadm,
    /// k3s with embedded etcd: certificates in `/var/lib/rancher/k3s/server/tls/etcd`.
    K3s,
    /// Talos Linux: a talosconfig by a ServiceAccount of Talos's API access.
    Talos,
}

impl Distribution {
    /// The host's directory with what is needed, mounted at the same place.
    fn host_path(self) -> Option<&'static str> {
        match self {
            Self::Kubeadm => Some("/etc/kubernetes/pki/etcd"),
            Self::K3s => Some("/var/lib/rancher/k3s/server/tls/etcd"),
            Self::Talos => None,
        }
    }
}

/// Puts in force what it reads.
const APPLY: &str = "kubectl apply -f -";

/// Where an agent in a pod serves, and where from it can be asked.
struct Served {
    /// The port.
    port: u16,
    /// The address that probes ask; none for the pod's own.
    host: Option<IpAddr>,
    /// What the agent has to be told beyond its configuration.
    told: Option<SocketAddr>,
}

impl Served {
    /// In the host's network loopback is the host's, and kubelet is there too. In a network of its own nobody else reaches it.
    fn of(request: &Request) -> Outcome<Option<Self>> {
        let Some(address) = request.agent.address()? else { return Ok(None) };
        let is_ours = address.ip().is_loopback();
        let is_hosts = request.distribution.host_path().is_some();
        Ok(Some(Self {
            port: address.port(),
            host: Some(address.ip()).filter(|ip| is_hosts && !ip.is_unspecified()),
            told: (is_ours && !is_hosts).then(|| SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()))),
        }))
    }

    fn probe(&self, path: &str) -> String {
        let host = self.host.map(|host| format!(", host: \"{host}\"")).unwrap_or_default();
        format!("{{httpGet: {{path: {path}, port: {}{host}}}, periodSeconds: 30, timeoutSeconds: 5}}", self.port)
    }
}

pub(super) fn cron_job(request: &Request) -> Outcome<Files> {
    let fields = five_fields(&request.backup)?;
    let name = request
        .cluster
        .as_ref()
        .map_or_else(|| "lifeboat".to_owned(), |cluster| format!("lifeboat-{}", cluster.as_str().replace(['.', '_'], "-")));
    reachable(request)?;
    let zone = request.backup.timezone.as_deref().unwrap_or("Etc/UTC");
    let zone = format!("  timeZone: \"{zone}\"\n");
    let mut arguments = "\"backup\", \"--config\", \"/etc/lifeboat/lifeboat.yaml\"".to_owned();
    if let Some(cluster) = &request.cluster {
        arguments.push_str(&format!(", \"--cluster\", \"{cluster}\""));
    }
    if request.prunes {
        arguments.push_str(", \"--prune\"");
    }
    // A run of more than six hours hangs; one that failed is tried again twice, and shows as failed then.
    let text = format!(
        "{}apiVersion: batch/v1\nkind: CronJob\nmetadata:\n  name: {name}\n  namespace: {}\nspec:\n  schedule: \"{fields}\"\n{zone}  concurrencyPolicy: Forbid\n  startingDeadlineSeconds: 3600\n  jobTemplate:\n    spec:\n      backoffLimit: 2\n      activeDeadlineSeconds: 21600\n      \
         # Not tried again: 2 is a wrong configuration, 3 a backup that was committed with warnings (the job shows as failed all the same: look).\n      podFailurePolicy:\n        rules:\n          - action: FailJob\n            onExitCodes: {{containerName: lifeboat, operator: In, values: [2, 3]}}\n      template:\n        spec:\n          restartPolicy: Never\n{}",
        service_account(request),
        request.namespace,
        pod(request, 10, &arguments, None)
    );
    Ok(Files { files: vec![Planned { path: None, text }], then: vec![APPLY.to_owned()] })
}

pub(super) fn deployment(request: &Request) -> Outcome<Files> {
    reachable(request)?;
    let served = Served::of(request)?;
    let mut arguments = "\"agent\", \"--config\", \"/etc/lifeboat/lifeboat.yaml\"".to_owned();
    if let Some(address) = served.as_ref().and_then(|served| served.told) {
        arguments.push_str(&format!(", \"--listen\", \"{address}\""));
    }
    let text = format!(
        "{}apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: lifeboat-agent\n  namespace: {}\nspec:\n  replicas: 1\n  strategy: {{type: Recreate}}\n  selector:\n    matchLabels: {{app.kubernetes.io/name: lifeboat-agent}}\n  template:\n    metadata:\n      labels: {{app.kubernetes.io/name: lifeboat-agent}}\n    spec:\n      # Longer than agent.stop_within.\n      terminationGracePeriodSeconds: {}\n{}",
        service_account(request),
        request.namespace,
        request.stop_seconds(),
        pod(request, 6, &arguments, served.as_ref())
    );
    Ok(Files { files: vec![Planned { path: None, text }], then: vec![APPLY.to_owned()] })
}

/// Refuses stores in directories: in a pod there is nothing behind them.
fn reachable(request: &Request) -> Outcome<()> {
    let Some(directory) = request.writable.first() else { return Ok(()) };
    Err(Failure::usage("a pod has no directory to keep backups in")
        .object(directory.display())
        .cause("its file system is read-only and ends with it; name a store of s3://, gs:// or az:// (and no spool.directory), or mount a volume there in a manifest of your own")
        .again())
}

/// Talos gives a talosconfig to who asks by this object, where the machine configs allow it.
fn service_account(request: &Request) -> String {
    if request.distribution != Distribution::Talos {
        return String::new();
    }
    format!(
        "# The machine configs must allow it: machine.features.kubernetesTalosAPIAccess with role os:etcd:backup and this namespace.\napiVersion: talos.dev/v1alpha1\nkind: ServiceAccount\nmetadata:\n  name: lifeboat-talos\n  namespace: {}\nspec:\n  roles: [\"os:etcd:backup\"]\n---\n",
        request.namespace
    )
}

/// The pod's own part, indented by so many blanks.
fn pod(request: &Request, indent: usize, arguments: &str, served: Option<&Served>) -> String {
    let mut lines: Vec<String> = Vec::new();
    let mut line = |text: &str| lines.push(text.to_owned());
    if let Some(path) = request.distribution.host_path() {
        let label = if request.distribution == Distribution::K3s {
            "node-role.kubernetes.io/etcd"
        } else {
            "node-role.kubernetes.io/control-plane"
        };
        line("# etcd listens on loopback, and its certificates are the host's.");
        line("hostNetwork: true");
        line("affinity:");
        line("  nodeAffinity:");
        line("    requiredDuringSchedulingIgnoredDuringExecution:");
        line("      nodeSelectorTerms:");
        line(&format!("        - matchExpressions: [{{key: {label}, operator: Exists}}]"));
        line("tolerations:");
        line("  - {key: node-role.kubernetes.io/control-plane, operator: Exists, effect: NoSchedule}");
        line("  - {key: node-role.kubernetes.io/etcd, operator: Exists, effect: NoExecute}");
        line("containers:");
        container(request, arguments, served, &mut line);
        line(&format!("    - {{name: etcd, mountPath: {path}, readOnly: true}}"));
        line("volumes:");
        volumes(&mut line);
        line(&format!("  - name: etcd\n    hostPath: {{path: {path}, type: Directory}}"));
    } else {
        line("# The Secrets' files are root's; this group may read them.");
        line("securityContext: {fsGroup: 65532}");
        line("containers:");
        container(request, arguments, served, &mut line);
        line("    - {name: talos, mountPath: /var/run/secrets/talos.dev, readOnly: true}");
        line("volumes:");
        volumes(&mut line);
        line("  - name: talos\n    secret: {secretName: lifeboat-talos}");
    }
    let blanks = " ".repeat(indent);
    lines.iter().flat_map(|text| text.lines()).map(|text| format!("{blanks}{text}\n")).collect()
}

fn container(request: &Request, arguments: &str, served: Option<&Served>, line: &mut impl FnMut(&str)) {
    // Certificates of the host belong to root.
    let user = if request.distribution.host_path().is_some() { 0 } else { 65_532 };
    line("- name: lifeboat");
    line(&format!("  image: \"{}\"", request.image));
    line(&format!("  args: [{arguments}]"));
    line("  securityContext:");
    line(&format!("    runAsUser: {user}"));
    line("    readOnlyRootFilesystem: true");
    line("    allowPrivilegeEscalation: false");
    line("    capabilities: {drop: [\"ALL\"]}");
    line("    seccompProfile: {type: RuntimeDefault}");
    if let Some(served) = served {
        line(&format!("  ports: [{{name: metrics, containerPort: {}}}]", served.port));
        line(&format!("  livenessProbe: {}", served.probe("/healthz")));
        line("  # Not ready: a cluster is not protected, or was not looked at yet.");
        line(&format!("  readinessProbe: {}", served.probe("/readyz")));
    }
    line("  resources:");
    line("    requests: {cpu: 50m, memory: 64Mi}");
    line("    limits: {memory: 512Mi}");
    line("  volumeMounts:");
    line("    # The Secret lifeboat holds lifeboat.yaml, and whatever files that names.");
    line("    - {name: config, mountPath: /etc/lifeboat, readOnly: true}");
    line("    - {name: work, mountPath: /var/lib/lifeboat}");
}

fn volumes(line: &mut impl FnMut(&str)) {
    line("  - name: config\n    secret: {secretName: lifeboat, defaultMode: 256}");
    line("  - name: work\n    emptyDir: {}");
}

#[cfg(test)]
mod tests {
    use super::super::tests::request;
    use super::super::{Kind, Request, files};
    use super::Distribution;
    use crate::config::Agent;

    fn parsed(text: &str) -> Vec<serde_json::Value> {
        text.split("\n---\n").map(|document| serde_saphyr::from_str(document).unwrap_or_else(|error| panic!("{error}\n{text}"))).collect()
    }

    #[test]
    fn an_agent_in_a_pod_is_asked_where_it_listens() {
        let container = |distribution, listen: Option<&str>| {
            let agent = Agent { listen: listen.map(str::to_owned), stop_within: Some("5m".to_owned()), ..Agent::default() };
            let made = files(&Request { distribution, agent, writable: Vec::new(), ..request(Kind::Deployment) }).unwrap();
            let spec = parsed(&made.files[0].text).pop().unwrap()["spec"]["template"]["spec"].clone();
            assert_eq!(spec["terminationGracePeriodSeconds"], 360, "longer than it may take");
            spec["containers"][0].clone()
        };
        let asked = |container: &serde_json::Value| {
            let get = &container["livenessProbe"]["httpGet"];
            assert_eq!(get["port"], container["ports"][0]["containerPort"]);
            assert_eq!((&get["path"], &container["readinessProbe"]["httpGet"]["path"]), (&"/healthz".into(), &"/readyz".into()));
            (get["host"].as_str().map(str::to_owned), get["port"].as_u64(), container["args"].as_array().unwrap().len())
        };
        let (hosts, own) = (Distribution::Kubeadm, Distribution::Talos);
        assert_eq!(asked(&container(hosts, None)), (Some("127.0.0.1".to_owned()), Some(9790), 3));
        assert_eq!(asked(&container(hosts, Some("0.0.0.0:1234"))), (None, Some(1234), 3));
        assert_eq!(asked(&container(own, Some("[::]:1234"))), (None, Some(1234), 3));
        let told = container(own, None);
        assert_eq!((asked(&told), &told["args"][4]), ((None, Some(9790), 5), &"0.0.0.0:9790".into()), "nobody reaches its loopback");
        assert!(container(own, Some("off"))["livenessProbe"].is_null());
    }

    #[test]
    fn manifests_are_sound_yaml_with_what_each_place_needs() {
        for distribution in [Distribution::Kubeadm, Distribution::K3s, Distribution::Talos] {
            for kind in [Kind::CronJob, Kind::Deployment] {
                let made = files(&Request { distribution, writable: Vec::new(), ..request(kind) }).unwrap();
                let documents = parsed(&made.files[0].text);
                let work = documents.last().unwrap();
                let pod = match kind {
                    Kind::CronJob => &work["spec"]["jobTemplate"]["spec"]["template"]["spec"],
                    _ => &work["spec"]["template"]["spec"],
                };
                let container = &pod["containers"][0];
                assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
                let mounts = container["volumeMounts"].as_array().unwrap();
                assert_eq!(mounts.len(), pod["volumes"].as_array().unwrap().len(), "every volume is mounted");
                match distribution {
                    Distribution::Talos => {
                        assert_eq!((documents.len(), &documents[0]["spec"]["roles"][0]), (2, &"os:etcd:backup".into()));
                        assert!(pod["hostNetwork"].is_null());
                        assert_eq!(
                            pod["securityContext"]["fsGroup"], container["securityContext"]["runAsUser"],
                            "who runs it can read its Secrets"
                        );
                    }
                    _ => assert_eq!((documents.len(), &pod["hostNetwork"]), (1, &true.into())),
                }
            }
        }
        let in_bucket = Request { writable: Vec::new(), prunes: true, ..request(Kind::CronJob) };
        let job = parsed(&files(&in_bucket).unwrap().files[0].text);
        assert_eq!((&job[0]["spec"]["timeZone"], files(&request(Kind::CronJob)).is_err()), (&"Etc/UTC".into(), true));
        assert_eq!((&job[0]["spec"]["schedule"], &job[0]["spec"]["concurrencyPolicy"]), (&"0 */6 * * *".into(), &"Forbid".into()));
    }
}
