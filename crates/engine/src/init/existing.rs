//! A configuration that is there already: whether it says what this run was asked for. Pure.

use std::path::PathBuf;

use crate::config::Config;

/// What the command line asked for, as far as it did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// The store's URL.
    pub repo: Option<String>,
    /// The cluster's name.
    pub cluster: Option<String>,
    /// Client URLs.
    pub endpoints: Vec<String>,
    /// Recipients, in their one form.
    pub recipients: Vec<String>,
    /// The signing key's file, absolute.
    pub signing_file: Option<PathBuf>,
}

/// Where the configuration says otherwise, in words. Empty when it agrees.
#[must_use]
pub fn disagreements(config: &Config, asked: &Asked) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(repo) = &asked.repo
        && !config.stores.values().any(|store| store.url.trim_end_matches('/') == repo.trim_end_matches('/'))
    {
        let known: Vec<&str> = config.stores.values().map(|store| store.url.as_str()).collect();
        found.push(format!("its stores are {}, not {repo}", list(&known)));
    }
    if let Some(cluster) = &asked.cluster
        && !config.clusters.contains_key(cluster)
    {
        let known: Vec<&str> = config.clusters.keys().map(String::as_str).collect();
        found.push(format!("its clusters are {}, not {cluster}", list(&known)));
    }
    let clusters = || config.clusters.iter().filter(|(name, _)| asked.cluster.as_ref().is_none_or(|asked| asked == *name));
    let reaches = |endpoint: &String| {
        clusters().any(|(_, cluster)| {
            let etcd = cluster.etcd.clone().or_else(|| cluster.kubeadm.map(crate::config::Kubeadm::etcd)).unwrap_or_default();
            etcd.endpoints.contains(endpoint)
        })
    };
    found.extend(
        asked.endpoints.iter().filter(|endpoint| !reaches(endpoint)).map(|endpoint| format!("it does not name the endpoint {endpoint}")),
    );
    for recipient in &asked.recipients {
        if !config.keys.recipients.iter().any(|known| known.trim().eq_ignore_ascii_case(recipient)) {
            found.push(format!("{recipient} is not among its recipients"));
        }
    }
    if let Some(file) = &asked.signing_file
        && config.keys.signing_file.as_ref() != Some(file)
    {
        let known = config.keys.signing_file.as_ref().map_or_else(|| "none".to_owned(), |known| known.display().to_string());
        found.push(format!("its signing key is {known}, not {}", file.display()));
    }
    found
}

fn list(names: &[&str]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_agrees_is_silent_and_what_does_not_is_named() {
        let config = crate::config::parse(
            "stores: {main: {url: 'file:///b'}}\nkeys: {recipients: [age1x], signing_file: /k}\nclusters: {prod: {etcd: {endpoints: ['http://a:1']}}}\n",
        )
        .unwrap();
        let asked = Asked {
            repo: Some("file:///b/".to_owned()),
            cluster: Some("prod".to_owned()),
            endpoints: vec!["http://a:1".to_owned()],
            recipients: vec!["age1x".to_owned()],
            signing_file: Some("/k".into()),
        };
        assert_eq!(disagreements(&config, &asked), Vec::<String>::new());
        assert_eq!(disagreements(&config, &Asked::default()), Vec::<String>::new());
        let other = Asked {
            repo: Some("file:///c".to_owned()),
            cluster: Some("edge".to_owned()),
            endpoints: vec!["http://b:1".to_owned()],
            recipients: vec!["age1y".to_owned()],
            signing_file: Some("/l".into()),
        };
        assert_eq!(disagreements(&config, &other).len(), 5);
    }
}
