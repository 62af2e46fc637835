//! Reading Talos' resources (COSI). Writing them is refused to everybody.

use std::time::Duration;

use etcd_store::id::MemberId;
use tokio::time::timeout;

use super::Node;
use super::call::Via;
use super::method::{self, Method};
use crate::error::{Error, ErrorKind};
use crate::limits::{RESOURCES_BYTES_MAX, RESOURCES_MAX};
use crate::pb;
use crate::types::resource::{Kind, LocalMember, NodeAddresses};
use crate::types::{ClusterMember, Diagnostic, EtcdSpec, MachineConfig, MachineStatus, MachineType, TimeStatus, Volume};
use crate::vip::NodeAddress;

impl Node {
    /// What the node is.
    ///
    /// # Errors
    /// What any call may return.
    pub async fn machine_type(&self) -> Result<MachineType, Error> {
        Ok(self.get::<MachineType>("machine-type").await?.unwrap_or(MachineType::Unknown))
    }

    /// The node's active configuration, byte for byte. Needs `os:admin`.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`]; [`ErrorKind::NotFound`] before the node is configured; what any call may return.
    pub async fn machine_config(&self) -> Result<MachineConfig, Error> {
        self.get::<MachineConfig>("v1alpha1").await?.ok_or_else(|| self.missing("the machine config"))
    }

    /// The nodes of the cluster as this one has discovered them; none where discovery is off.
    ///
    /// # Errors
    /// What any call may return.
    pub async fn cluster_members(&self) -> Result<Vec<ClusterMember>, Error> {
        self.resources().await
    }

    /// Id of the etcd member on the node; `None` while its etcd is not healthy.
    ///
    /// # Errors
    /// What any call may return.
    pub async fn etcd_member_id(&self) -> Result<Option<MemberId>, Error> {
        Ok(self.get::<LocalMember>("local").await?.map(|local| local.0))
    }

    /// How etcd is run on the node; `None` where none is.
    ///
    /// # Errors
    /// What any call may return.
    pub async fn etcd_spec(&self) -> Result<Option<EtcdSpec>, Error> {
        self.get("etcd").await
    }

    /// The node's addresses at present, a virtual address it holds among them.
    ///
    /// # Errors
    /// What any call may return.
    pub async fn addresses(&self) -> Result<Vec<NodeAddress>, Error> {
        Ok(self.get::<NodeAddresses>("current").await?.map(|addresses| addresses.0).unwrap_or_default())
    }

    /// The node's volumes.
    ///
    /// # Errors
    /// What any call may return.
    pub async fn volumes(&self) -> Result<Vec<Volume>, Error> {
        self.resources().await
    }

    /// One volume by its label, `ETCD` for one; `None` when there is none.
    ///
    /// # Errors
    /// What any call may return.
    pub async fn volume(&self, label: &str) -> Result<Option<Volume>, Error> {
        self.get(label).await
    }

    /// How far the machine has come; `None` when it does not say.
    ///
    /// # Errors
    /// What any call may return.
    pub async fn machine_status(&self) -> Result<Option<MachineStatus>, Error> {
        self.get("machine").await
    }

    /// Whether the node's clock is in sync, which Bootstrap insists on; `None` when it does not say.
    ///
    /// # Errors
    /// What any call may return.
    pub async fn time_status(&self) -> Result<Option<TimeStatus>, Error> {
        self.get("node").await
    }

    /// What Talos itself finds wrong with the node.
    ///
    /// # Errors
    /// What any call may return.
    pub async fn diagnostics(&self) -> Result<Vec<Diagnostic>, Error> {
        self.resources().await
    }

    fn missing(&self, what: &str) -> Error {
        self.error(&method::RESOURCE_GET, None, ErrorKind::NotFound(what.to_owned()))
    }

    /// One resource; `None` when it does not exist.
    async fn get<K: Kind>(&self, id: &str) -> Result<Option<K>, Error> {
        const METHOD: &Method = &method::RESOURCE_GET;
        let request = pb::GetRequest { namespace: K::NAMESPACE.to_owned(), r#type: K::TYPE.to_owned(), id: id.to_owned() };
        let got = self.unary::<_, pb::GetResponse>(METHOD, request, self.request_timeout()).await;
        let (via, answer) = match got {
            Ok(got) => got,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound(_)) => return Ok(None),
            Err(error) => return Err(self.secret_needs_admin::<K>(error)),
        };
        match answer.resource {
            Some(resource) => self.read_resource(METHOD, via, &resource).map(Some),
            None => Err(self.error(METHOD, Some(via), ErrorKind::Protocol("an answer without a resource".to_owned()))),
        }
    }

    /// Every resource of a kind.
    async fn resources<K: Kind>(&self) -> Result<Vec<K>, Error> {
        const METHOD: &Method = &method::RESOURCE_LIST;
        let limit = self.request_timeout();
        let request = pb::ResourceListRequest { namespace: K::NAMESPACE.to_owned(), r#type: K::TYPE.to_owned() };
        let (via, mut stream, mut next) = self.open::<_, pb::ListResponse>(METHOD, request, limit).await?;
        let (mut found, mut bytes) = (Vec::new(), 0_usize);
        while let Some(answer) = next {
            if let Some(resource) = answer.resource {
                bytes = bytes.saturating_add(spec(&resource).len());
                if found.len() >= RESOURCES_MAX || bytes > RESOURCES_BYTES_MAX {
                    return Err(self.error(METHOD, Some(via), ErrorKind::TooLarge(format!("{} of type {}", found.len(), K::TYPE))));
                }
                found.push(self.read_resource(METHOD, via, &resource)?);
            }
            next = self.next_resource(METHOD, via, limit, timeout(limit, stream.message()).await)?;
        }
        Ok(found)
    }

    fn next_resource<T>(
        &self,
        method: &'static Method,
        via: Via,
        limit: Duration,
        got: Result<Result<T, tonic::Status>, tokio::time::error::Elapsed>,
    ) -> Result<T, Error> {
        match got {
            Ok(Ok(next)) => Ok(next),
            Ok(Err(status)) => Err(self.error(method, Some(via), self.classify(method, via, limit, &status))),
            Err(_) => Err(self.error(method, Some(via), ErrorKind::Timeout(limit))),
        }
    }

    fn read_resource<K: Kind>(&self, method: &'static Method, via: Via, resource: &pb::Resource) -> Result<K, Error> {
        let id = resource.metadata.as_ref().map(|metadata| metadata.id.as_str()).unwrap_or_default();
        K::read(id, spec(resource)).ok_or_else(|| {
            let fact = format!("{} '{}' cannot be read", K::TYPE, grpc_link::tame(id));
            self.error(method, Some(via), ErrorKind::Protocol(fact))
        })
    }

    /// Resources are served to every reader but for those that hold secrets, which the method's own roles cannot tell.
    fn secret_needs_admin<K: Kind>(&self, error: Error) -> Error {
        match error.kind() {
            ErrorKind::Denied { had, .. } if K::TYPE == MachineConfig::TYPE => {
                let kind = ErrorKind::Denied { needs: &[crate::Role::Admin], had: had.clone(), newer: None };
                Error::new(error.call(), error.node(), error.endpoint(), kind)
            }
            _ => error,
        }
    }
}

fn spec(resource: &pb::Resource) -> &[u8] {
    resource.spec.as_ref().map(|spec| spec.proto_spec.as_ref()).unwrap_or_default()
}
