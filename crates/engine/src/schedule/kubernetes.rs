//! Manifests of Kubernetes: a CronJob, or the agent as a Deployment, on the nodes that have what a backup needs.

use super::{Files, Planned, Request, five_fields};
use crate::failure::Outcome;

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

/// `kubectl apply -f` of what was printed.
const APPLY: &str = "lifeboat schedule … | kubectl apply -f -";

pub(super) fn cron_job(request: &Request) -> Outcome<Files> {
    let fields = five_fields(&request.backup)?;
    let name = request
        .cluster
        .as_ref()
        .map_or_else(|| "lifeboat".to_owned(), |cluster| format!("lifeboat-{}", cluster.as_str().replace(['.', '_'], "-")));
    let zone = request.backup.timezone.as_ref().map(|zone| format!("  timeZone: \"{zone}\"\n")).unwrap_or_default();
    let mut arguments = "\"backup\", \"--config\", \"/etc/lifeboat/lifeboat.yaml\"".to_owned();
    if let Some(cluster) = &request.cluster {
        arguments.push_str(&format!(", \"--cluster\", \"{cluster}\""));
    }
    // A run of more than six hours hangs; one that failed is tried again twice, and shows as failed then.
    let text = format!(
        "{}apiVersion: batch/v1\nkind: CronJob\nmetadata:\n  name: {name}\n  namespace: {}\nspec:\n  schedule: \"{fields}\"\n{zone}  concurrencyPolicy: Forbid\n  startingDeadlineSeconds: 3600\n  jobTemplate:\n    spec:\n      backoffLimit: 2\n      activeDeadlineSeconds: 21600\n      \
         # Not tried again: 2 is a wrong configuration, 3 a backup that was committed with warnings (the job shows as failed all the same: look).\n      podFailurePolicy:\n        rules:\n          - action: FailJob\n            onExitCodes: {{containerName: lifeboat, operator: In, values: [2, 3]}}\n      template:\n        spec:\n          restartPolicy: Never\n{}",
        service_account(request),
        request.namespace,
        pod(request, 10, &arguments)
    );
    Ok(Files { files: vec![Planned { path: None, text }], then: vec![APPLY.to_owned()] })
}

pub(super) fn deployment(request: &Request) -> Files {
    let text = format!(
        "{}apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: lifeboat-agent\n  namespace: {}\nspec:\n  replicas: 1\n  strategy: {{type: Recreate}}\n  selector:\n    matchLabels: {{app.kubernetes.io/name: lifeboat-agent}}\n  template:\n    metadata:\n      labels: {{app.kubernetes.io/name: lifeboat-agent}}\n    spec:\n{}",
        service_account(request),
        request.namespace,
        pod(request, 6, "\"agent\", \"--config\", \"/etc/lifeboat/lifeboat.yaml\"")
    );
    Files { files: vec![Planned { path: None, text }], then: vec![APPLY.to_owned()] }
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
fn pod(request: &Request, indent: usize, arguments: &str) -> String {
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
        container(request, arguments, &mut line);
        line(&format!("    - {{name: etcd, mountPath: {path}, readOnly: true}}"));
        line("volumes:");
        volumes(&mut line);
        line(&format!("  - name: etcd\n    hostPath: {{path: {path}, type: Directory}}"));
    } else {
        line("# The Secrets' files are root's; this group may read them.");
        line("securityContext: {fsGroup: 65532}");
        line("containers:");
        container(request, arguments, &mut line);
        line("    - {name: talos, mountPath: /var/run/secrets/talos.dev, readOnly: true}");
        line("volumes:");
        volumes(&mut line);
        line("  - name: talos\n    secret: {secretName: lifeboat-talos}");
    }
    let blanks = " ".repeat(indent);
    lines.iter().flat_map(|text| text.lines()).map(|text| format!("{blanks}{text}\n")).collect()
}

fn container(request: &Request, arguments: &str, line: &mut impl FnMut(&str)) {
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

    fn parsed(text: &str) -> Vec<serde_json::Value> {
        text.split("\n---\n").map(|document| serde_saphyr::from_str(document).unwrap_or_else(|error| panic!("{error}\n{text}"))).collect()
    }

    #[test]
    fn manifests_are_sound_yaml_with_what_each_place_needs() {
        for distribution in [Distribution::Kubeadm, Distribution::K3s, Distribution::Talos] {
            for kind in [Kind::CronJob, Kind::Deployment] {
                let made = files(&Request { distribution, ..request(kind) }).unwrap();
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
        let job = parsed(&files(&request(Kind::CronJob)).unwrap().files[0].text);
        assert_eq!((&job[0]["spec"]["schedule"], &job[0]["spec"]["concurrencyPolicy"]), (&"0 */6 * * *".into(), &"Forbid".into()));
    }
}
