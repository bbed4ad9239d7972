//! A few connections to a PostgreSQL, for those who come and go.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_postgres::{Client, Config, Error, NoTls};

/// Connections that are made when they are needed, and again once they are lost.
pub struct Connections {
    config: Config,
    idle: Mutex<Vec<Client>>,
    allowed: Semaphore,
}

impl Connections {
    /// At most so many to the server that the URL names. Makes none yet.
    ///
    /// # Errors
    /// It is no URL of a PostgreSQL.
    pub fn new(url: &str, most: usize) -> Result<Self, Error> {
        Ok(Self {
            config: url.parse()?,
            idle: Mutex::default(),
            allowed: Semaphore::new(most),
        })
    }

    /// A connection that nobody else uses; waits for one.
    ///
    /// # Errors
    /// The server does not let anybody in.
    pub async fn get(&self) -> Result<Lease<'_>, Error> {
        // It is never closed; without a permit there would only be more connections.
        let permit = self.allowed.acquire().await.ok();
        let idle = self.lock().pop();
        let client = match idle.filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => self.connect().await?,
        };
        Ok(Lease {
            client: Some(client),
            owner: self,
            _permit: permit,
        })
    }

    async fn connect(&self) -> Result<Client, Error> {
        let (client, connection) = self.config.connect(NoTls).await?;
        // Ends with the client; what goes wrong is the error of the calls.
        tokio::spawn(async move { drop(connection.await) });
        Ok(client)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Client>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The configuration may hold a password.
        f.debug_struct("Connections").finish_non_exhaustive()
    }
}

/// A connection of one's own for a while.
///
/// Dropped in the middle of a statement it is still sound: the answer is awaited by nobody, and the
/// next statement comes after it.
pub struct Lease<'a> {
    /// Until the end.
    client: Option<Client>,
    owner: &'a Connections,
    _permit: Option<SemaphorePermit<'a>>,
}

const HELD: &str = "a lease holds its connection to the end";

impl Deref for Lease<'_> {
    type Target = Client;

    fn deref(&self) -> &Client {
        self.client.as_ref().expect(HELD)
    }
}

impl DerefMut for Lease<'_> {
    fn deref_mut(&mut self) -> &mut Client {
        self.client.as_mut().expect(HELD)
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let sound = self.client.take().filter(|client| !client.is_closed());
        if let Some(client) = sound {
            self.owner.lock().push(client);
        }
    }
}

impl fmt::Debug for Lease<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").finish_non_exhaustive()
    }
}
