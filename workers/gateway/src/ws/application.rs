//! A WebSocket client and an application in processes of its own.

use super::Connection;
use crate::ending::Ending;
use crate::external;
use crate::lines::line;
use futures_util::future::LocalBoxFuture;
use session::Sid;
use std::rc::Rc;
use store::Unit;

impl Connection {
    /// Puts something into the inbox of the application.
    pub(super) async fn put_records(&self, units: Vec<Unit>) {
        let Some(external) = &self.worker.external else { return };
        if let Err(error) = external.deliver(units).await {
            line!(warn, %error, "records of a client not stored for the application");
            self.end(Ending::StoreUnavailable);
        }
    }

    /// The same for what a client sent: nothing more is read before it is there.
    pub(super) fn hand_over(self: &Rc<Self>, unit: Box<Unit>) -> LocalBoxFuture<'static, ()> {
        let this = self.clone();
        Box::pin(async move { this.put_records(vec![*unit]).await })
    }

    /// The application hears that the client has left a namespace.
    pub(super) fn tell_left(self: &Rc<Self>, sid: Sid) -> LocalBoxFuture<'static, ()> {
        let this = self.clone();
        Box::pin(async move {
            if let Some(external) = &this.worker.external {
                external.leave(vec![sid], external::LEFT).await;
            }
        })
    }
}
