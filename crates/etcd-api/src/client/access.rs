//! Users and roles, as far as setting a cluster up and testing against one needs them.

use secrecy::{ExposeSecret, SecretString};

use super::{Client, method};
use crate::error::Error;
use crate::pb;

impl Client {
    /// Adds a user with a password.
    ///
    /// # Errors
    /// `Rpc` when the name is taken, and what any call may return.
    pub async fn user_add(&self, name: &str, password: &SecretString) -> Result<(), Error> {
        let request = pb::AuthUserAddRequest { name: name.to_owned(), password: password.expose_secret().to_owned() };
        self.change_auth(&method::USER_ADD, request).await
    }

    /// Adds a role without any permission. The role `root` has every permission by its name.
    ///
    /// # Errors
    /// `Rpc` when the name is taken, and what any call may return.
    pub async fn role_add(&self, name: &str) -> Result<(), Error> {
        let request = pb::AuthRoleAddRequest { name: name.to_owned() };
        self.change_auth(&method::ROLE_ADD, request).await
    }

    /// Gives a role to a user.
    ///
    /// # Errors
    /// `Rpc` when either does not exist, and what any call may return.
    pub async fn user_grant_role(&self, user: &str, role: &str) -> Result<(), Error> {
        let request = pb::AuthUserGrantRoleRequest { user: user.to_owned(), role: role.to_owned() };
        self.change_auth(&method::USER_GRANT_ROLE, request).await
    }

    /// Turns authentication on. The user `root` with the role `root` must exist.
    ///
    /// # Errors
    /// `Rpc` when they do not, and what any call may return.
    pub async fn auth_enable(&self) -> Result<(), Error> {
        self.change_auth(&method::AUTH_ENABLE, pb::AuthEnableRequest {}).await
    }

    /// Turns authentication off.
    ///
    /// # Errors
    /// What any call may return. Needs the role `root`.
    pub async fn auth_disable(&self) -> Result<(), Error> {
        self.change_auth(&method::AUTH_DISABLE, pb::AuthDisableRequest {}).await
    }

    async fn change_auth<Q>(&self, method: &'static method::Method, request: Q) -> Result<(), Error>
    where
        Q: prost::Message + Clone + 'static,
    {
        let _: pb::AuthChangeResponse = self.call(method, request).await?;
        Ok(())
    }
}
