"""Every message by its kind, in alphabetical order. A new message is a line here, and a row in docs/protocol.md."""

from __future__ import annotations

from typing import Any

from libhive.messages import approvals, backup, base, broker, dashboard, gateway, lifecycle, updater
from libhive.messages.base import Event, Request

REQUESTS: dict[str, type[Request[Any]]] = {
    kind.KIND: kind
    for kind in (
        approvals.Approve,
        approvals.ArchiveConfig,
        approvals.Deny,
        approvals.Deployables,
        approvals.Proposals,
        approvals.Propose,
        approvals.ReadConfig,
        approvals.RecordDeploy,
        approvals.ShowProposal,
        approvals.Spawn,
        backup.BeginBackup,
        backup.EndBackup,
        backup.ReadBackup,
        base.Ping,
        broker.Ack,
        broker.AckInbox,
        broker.Answer,
        broker.Ask,
        broker.AwaitReply,
        broker.CancelReminder,
        broker.CloseMailbox,
        broker.DropMail,
        broker.Hello,
        broker.History,
        broker.Inbox,
        broker.LooseEnds,
        broker.Mailboxes,
        broker.MessageStatus,
        broker.News,
        broker.OpenMailbox,
        broker.Peers,
        broker.PurgeMailbox,
        broker.Questions,
        broker.Recv,
        broker.Remind,
        broker.Reminders,
        broker.ReportState,
        broker.Retain,
        broker.RetryMail,
        broker.Search,
        broker.Seen,
        broker.Send,
        broker.SetHold,
        broker.SetStatus,
        dashboard.MakeLink,
        gateway.EgressStatus,
        gateway.ForgetAgent,
        gateway.GatewayStatus,
        gateway.Login,
        gateway.Logout,
        lifecycle.Agents,
        lifecycle.Apply,
        lifecycle.CollectGarbage,
        lifecycle.Destroy,
        lifecycle.Exec,
        lifecycle.Forget,
        lifecycle.Logs,
        lifecycle.Prepare,
        lifecycle.Restart,
        lifecycle.Roots,
        lifecycle.Start,
        lifecycle.Stop,
        lifecycle.StopAll,
        updater.Deploys,
        updater.PurgeAgent,
        updater.Purges,
        updater.Rebuild,
    )
}

EVENTS: dict[str, type[Event]] = {
    kind.KIND: kind
    for kind in (
        approvals.ProposalChanged,
        broker.MailboxChanged,
        broker.MailboxPurged,
        broker.MessageStored,
        broker.PeerChanged,
        broker.QuestionChanged,
        broker.ReceiptChanged,
        broker.ReminderChanged,
        gateway.EgressUsed,
        gateway.GatewayChanged,
        gateway.RequestServed,
        lifecycle.AgentChanged,
        lifecycle.AgentForgotten,
        lifecycle.RootChanged,
        updater.DeployChanged,
        updater.PurgeChanged,
    )
}
