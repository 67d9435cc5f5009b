"""Every setting, and the catalogue of task names.

A setting is an environment variable of the same name, or of the name `NAME_FILE`: the path of a file that
holds the value.

A new setting takes these steps. `tests/unit/test_settings.py`, `tests/unit/test_docs.py` and
`tests/contract/test_recorded_responses.py` fail without the steps 2, 3 and 5.

1. Add a field to `Settings`: its type, its default, and a description for operators. The name ends with the
   unit, such as `_SECONDS`. A value of a new form gets a type in `app/setting_values.py`.
2. Copy the description and the default to `.env.example`; the failing test shows the lines.
3. Run `make reference`, which writes `docs/reference/settings.md`.
4. Pass the value to the code that needs it, in `app/builders.py` or `app/services.py`. A channel reads its
   settings in its method `from_settings`.
5. Run `.venv/bin/python -m tests.contract.test_recorded_responses --record`, because the recordings contain
   every setting.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from app.errors import SettingsError
from app.setting_values import (
    AppriseTargets,
    Base64Key,
    BindAddresses,
    CommaSeparated,
    JsonList,
    JsonObject,
    Pattern,
    PerSecond,
    Port,
    ProjectPath,
    Seconds,
    SlurmrestdAddress,
    SlurmUser,
    TrustedProxies,
    WebAddress,
    WebhookReceivers,
    Words,
    decode_key,
    decode_signing_key,
    is_loopback,
    split_addresses,
)

MAX_BODY_BYTES = 1024 * 1024  # of a request's body

TASK_METADATA: dict[str, dict[str, Any]] = {
    # The caller gives the command, its parameters and the notification.
    "generic": {"requires_command": True},
    # Has its own command and notification. A model for further entries, with a text for each method.
    "echo_hello_world": {
        "cmd": "echo",
        "default_params": ["-e", '"hello, world! (job $SLURM_JOB_ID of $SLURM_JOB_USER, `date`)"'],
        "notification": {
            "methods": ["test"],
            "params": {
                "email": {
                    "sender": "slurm-proxy@example.com",
                    "recipient": "someone@example.com",
                    "subject": "Hello, world: ${slurm_job_state}",
                    "body": "This is the message of the hello-world task.",
                },
                "gmail": {
                    "sender": "slurm-proxy@example.com",
                    "recipient": "someone@example.com",
                    "subject": "Hello, world: ${slurm_job_state}",
                    "body": "This is the message of the hello-world task.",
                },
                "slack": {"msg": "This is the message of the hello-world task."},
                "rabbitmq": {"queue": "slurm-proxy", "body": {"from": "the hello-world task"}},
                "test": {"subject": "Hello, world: ${slurm_job_state}"},
            },
        },
    },
}


class Settings(BaseModel):
    """All settings of one process, with checked values; its repr does not show secrets."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    # The development server, and gunicorn
    FLASK_APP_HOST: str = Field("127.0.0.1", description="The address that `python run.py` listens on.")
    FLASK_APP_PORT: int = Field(5001, ge=0, le=65535, description="The port that `python run.py` listens on.")
    GUNICORN_BIND: BindAddresses = Field(
        "127.0.0.1:5001",
        description="What gunicorn listens on: host:port or unix:/path, several separated by commas.",
    )
    GUNICORN_WORKERS: int = Field(2, ge=1, description="How many processes gunicorn runs.")
    GUNICORN_THREADS: int = Field(
        8, ge=1, description="How many requests each gunicorn process runs at a time."
    )
    GUNICORN_PIN_WORKERS: bool = Field(
        True,
        description="Whether each gunicorn process uses one processor only. With several callers at a time,"
        " this makes it up to twice as fast.",
    )
    CLIENT_REQUEST_TIMEOUT_SECONDS: Seconds = Field(
        30, description="How long a client may take to send a whole request, in seconds."
    )
    CLIENT_RESPONSE_TIMEOUT_SECONDS: Seconds = Field(
        60, description="How long a client may take to read a whole answer, in seconds."
    )
    LIMIT_CONNECTIONS: int = Field(
        128,
        ge=16,
        description="How many connections of clients one process keeps open, at most half of its limit on"
        " open files. If there are more, the process closes the connection that has kept it waiting longest."
        " Half of the connections may have requests that wait for tasks.",
    )

    # The log and the audit trail
    LOG_LEVEL: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="The least severe level that is logged: DEBUG, INFO, WARNING or ERROR."
    )
    LOG_FORMAT: Literal["text", "json"] = Field(
        "text", description="The form of the log: text, or json for one JSON object a line."
    )
    AUDIT_LOG_PATH: ProjectPath | None = Field(
        None,
        description="The file of the audit trail, with one JSON object a line. Without it the lines go to"
        " the log. A relative path begins at the folder that holds app/.",
    )

    # Authentication
    ACCESS_METHODS: Annotated[tuple[Literal["keys", "oidc"], ...], CommaSeparated] = Field(
        (),
        description="How callers authenticate: keys, oidc, or both, separated by commas. Without it there"
        " is no authentication, and the server serves only processes of its own user and of root on its own"
        " machine.",
    )
    ACCESS_ALL_LOCAL_USERS: bool = Field(
        False,
        description="Whether a server without authentication serves the processes of all users of its"
        " machine: true or false. Each of these users can then run anything as any user, and so can everyone"
        " who reaches a proxy or a tunnel on the machine.",
    )
    ACCESS_WITHOUT_PROOF: bool = Field(
        False,
        description="Whether a server without authentication serves other machines, too: true or false."
        " Everyone who reaches the server can then run anything as any user.",
    )
    ACCESS_TRUSTED_PROXIES: TrustedProxies = Field(
        (),
        description="The proxies whose headers are trusted, separated by commas: addresses, networks such"
        " as 10.0.0.0/8, or unix for proxies that connect to a Unix socket. X-Forwarded-For gives the"
        " client's address for the log, the audit trail and the limit on failed attempts. X-Forwarded-Proto"
        " gives the scheme of the examples in /docs. Name only proxies that set both headers themselves.",
    )

    # The identity provider
    OIDC_ISSUER: str | None = Field(
        None, description="The issuer of the identity provider's tokens, as in their claim iss."
    )
    OIDC_AUDIENCE: str | None = Field(None, description="The name of this service in the tokens' claim aud.")
    OIDC_JWKS_URL: WebAddress | None = Field(
        None,
        description="The URL of the provider's keys: jwks_uri in its /.well-known/openid-configuration.",
    )
    OIDC_ALGORITHMS: Annotated[
        tuple[
            Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"],
            ...,
        ],
        CommaSeparated,
        Field(min_length=1),
    ] = Field(("RS256",), description="The algorithms that tokens may be signed with, separated by commas.")
    OIDC_CLOCK_SKEW_SECONDS: Annotated[float, Field(ge=0, le=600)] = Field(
        60, description="How far the provider's clock may differ from this machine's, in seconds."
    )
    OIDC_USER_CLAIM: str | None = Field(
        None,
        description="The claim with the name of the Slurm user whom a caller may act for, such as"
        " preferred_username. Set it only if users cannot choose the value of the claim. Without it, only"
        " OIDC_GRANTS count.",
    )
    OIDC_GRANTS: JsonList = Field(
        default_factory=list,
        description='Further grants, for tokens with certain claims: a JSON list such as [{"claim":'
        ' "groups", "value": "hpc-admins", "grant": {"scopes": ["admin", "read"], "users": "any"}}].',
    )

    # Limits of callers
    LIMIT_REQUESTS_PER_MINUTE: int = Field(
        600,
        ge=0,
        description="The rate limit: how many requests one caller may send in a minute. Each process after"
        " the first may admit up to a sixtieth more. 0: no limit.",
    )
    LIMIT_FAILED_ATTEMPTS_PER_MINUTE: int = Field(
        30,
        ge=0,
        description="How many failed attempts to authenticate one address may make in a minute, in each"
        " process. Further ones are answered 429 and not logged. A valid key or token always works. 0: no"
        " limit.",
    )
    LIMIT_JOBS_IN_FLIGHT: int = Field(
        0,
        ge=0,
        description="How many jobs of one caller may wait or run at a time; an array counts as one. 0: no"
        " limit.",
    )

    # Slurm
    SLURM_REST_HOST: SlurmrestdAddress | None = Field(
        None,
        description="The address of slurmrestd: http://host:port, https://host:port or"
        " unix:///path/to/socket.",
    )
    SLURM_REST_CA_PATH: Path | None = Field(
        None,
        description="The certificate authority of an https slurmrestd, if the system does not trust it.",
    )
    SLURM_JWT_HS256_KEY_BASE64: Base64Key | None = Field(
        None, description="The cluster's jwt_hs256.key in base64 or base64url, padded or not."
    )
    SLURM_JWT_HS256_KEY_PATH: Path | None = Field(
        None, description="The path of the cluster's jwt_hs256.key, instead of its base64 form."
    )
    SLURM_REST_JWT_EXPIRATION_TIME: int = Field(
        300,
        gt=0,
        description="How long a token made for slurmrestd is valid, in seconds. A submission's token has an"
        " end of its own: after the longest time that its request can take, and SLURM_CLOCK_SKEW_SECONDS.",
    )
    SLURM_REST_USERNAME: SlurmUser = Field(
        "slurm",
        description="The Slurm user of the poller's requests; a SlurmUser such as slurm sees every job.",
    )
    SLURM_REST_CONNECT_TIMEOUT_SECONDS: Seconds = Field(
        3, description="How long a connection to slurmrestd may take to open, in seconds."
    )
    SLURM_REST_READ_TIMEOUT_SECONDS: Seconds = Field(
        30,
        description="How long slurmrestd may take to answer, in seconds. A caller waits at most this time"
        " and two connect timeouts.",
    )
    SLURM_REQUESTS_PER_SECOND: PerSecond = Field(
        2,
        description="How many requests to Slurm the GETs of tasks on this host may cause in a second, on"
        " average. The worker processes share this budget equally. A GET that exceeds it returns the last"
        " known facts.",
    )
    SLURM_CLOCK_SKEW_SECONDS: Seconds = Field(
        60,
        description="How far this machine's clock and the database's may differ from Slurm's, in seconds."
        " With a larger difference a process neither polls nor submits, and logs this.",
    )
    SLURM_MIN_JOB_AGE_SECONDS: Seconds = Field(
        300,
        description="How long slurmctld keeps a job that has ended, in seconds: MinJobAge of slurm.conf."
        " The setting counts only for a cluster without slurmdbd, and must not be larger than MinJobAge.",
    )

    # The store
    MONGODB_URI: SecretStr | None = Field(
        None,
        description="The MongoDB that stores the records. Without it, the file SQLITE_PATH stores them. For a"
        " server that is not in a replica set, add retryWrites=false: it cannot repeat writes, and the driver"
        " may need a minute to use it again after an outage.",
    )
    MONGODB_MONITOR_DB: str = Field("monitordb", description="The database in MongoDB.")
    MONGODB_MONITOR_JOBS_COLLECTION: str = Field("jobs", description="The collection of the job records.")
    MONGODB_TIMEOUT_SECONDS: Seconds = Field(
        5, description="How long one operation on MongoDB may take, in seconds."
    )
    SQLITE_PATH: ProjectPath = Field(
        Path("slurm-proxy.sqlite3"),
        validate_default=True,
        description="The file of the embedded store, on a local disk, for a server without MONGODB_URI. A"
        " relative path begins at the folder that holds app/.",
    )
    SQLITE_TIMEOUT_SECONDS: Seconds = Field(
        5,
        description="How long one operation may wait for another process that uses the file, in seconds.",
    )

    # The poller
    MONITOR_POLLING_SECONDS: Seconds = Field(
        5,
        description="The shortest pause of the poller between two cycles, and how often each channel looks"
        " for messages that are due, in seconds. If it is not set, the poller's shortest pause is 1 s. The"
        " pause grows up to 30 s, so that polling keeps Slurm busy for a tenth of the time at most. With a"
        " value above 30, every pause is as long as the value.",
    )
    MONITOR_LEASE_SECONDS: Seconds = Field(
        30,
        description="How long the leader's lease lasts, in seconds. If the leader does not renew the"
        " lease in this time, another process polls in its place.",
    )
    MONITOR_UNKNOWN_AFTER_SECONDS: Seconds = Field(
        600,
        description="How long a job must be unknown to Slurm before its record says UNKNOWN, in seconds.",
    )

    # Tasks
    TASK_TIME_UNIT: Literal["hours", "minutes"] = Field(
        "hours",
        description="The unit of task.slurm.time: hours, or minutes for callers of the older server.",
    )
    TASK_ALLOWED_SERVICE_USERS: Words = Field(
        (),
        description="Users that tasks may run as although they are refused by default, such as root,"
        " separated by commas.",
    )
    TASK_USERNAME_PATTERN: Pattern | None = Field(
        None,
        description="A regular expression for the user names that tasks may have, such as"
        " [A-Za-z0-9_][A-Za-z0-9_.@-]*. Without it a name is at most 32 of a-z, 0-9, _, . and -, and begins"
        " with a letter or _. Whatever the expression says, a name consists of ASCII letters, digits, _, .,"
        " @, +, $ and -, begins with a letter, a digit or _, and is not all digits, which Slurm takes for a"
        " user id.",
    )
    TASK_METADATA: Annotated[dict[str, Any], JsonObject] = Field(
        default_factory=dict,
        description="Further task names, as a JSON object like TASK_METADATA in app/constants.py. An entry"
        " may have a description, the command with its parameters, and defaults for slurm and dirs.",
    )

    # Notifications
    NOTIFICATIONS_CEILING: int = Field(
        20,
        ge=0,
        description="The rate limit of notifications: how many messages one person gets by one method in"
        " NOTIFICATIONS_WINDOW_SECONDS. Further ones are combined into a digest. 0: no limit.",
    )
    NOTIFICATIONS_WINDOW_SECONDS: Seconds = Field(
        600, description="The window of NOTIFICATIONS_CEILING, in seconds."
    )
    NOTIFICATIONS_HTTP_TIMEOUT_SECONDS: Annotated[Seconds, Field(ge=1)] = Field(
        15,
        description="How long Gmail, Slack, webhooks and Apprise targets may take to answer, in seconds; a"
        " message takes at most twice as long in all.",
    )
    NOTIFICATIONS_MAIL_ALLOWED: Words = Field(
        (),
        description="The addresses and whole domains that email and gmail may send to, separated by"
        " commas. Without it, all. The parameter reply_to may be in this list or in"
        " NOTIFICATIONS_MAIL_SENDERS.",
    )
    NOTIFICATIONS_MAIL_SENDERS: Words = Field(
        (),
        description="The addresses and whole domains that email and gmail may send from, separated by"
        " commas. Without it, all: with a Google service account, these are all users of its domain.",
    )
    NOTIFICATIONS_RETRY_SECONDS: Seconds = Field(
        86_400, description="How long a message is retried before it becomes a dead letter, in seconds."
    )
    NOTIFICATIONS_CLAIM_SECONDS: Seconds = Field(
        180,
        description="How long a process may take to send a message that it has claimed, in seconds. After"
        " that, another process may claim the message.",
    )

    # The channels
    NOTIFICATIONS_SMTP_SERVER: str | None = Field(
        None, description="The mail server; without it the method email is not configured."
    )
    NOTIFICATIONS_SMTP_PORT: Port | None = Field(
        None,
        description="The port of the mail server; by default 587 for starttls, 465 for tls and 25 for none.",
    )
    NOTIFICATIONS_SMTP_USERNAME: str | None = Field(
        None, description="The user to log in to the mail server as; without it there is no login."
    )
    NOTIFICATIONS_SMTP_PASSWORD: SecretStr | None = Field(
        None, description="The password of NOTIFICATIONS_SMTP_USERNAME."
    )
    NOTIFICATIONS_SMTP_SECURITY: Literal["starttls", "tls", "none"] = Field(
        "starttls", description="How the connection to the mail server is secured: starttls, tls or none."
    )
    NOTIFICATIONS_SMTP_CA_PATH: Path | None = Field(
        None,
        description="The certificate authority of the mail server, if the system does not trust it.",
    )
    NOTIFICATIONS_SMTP_TIMEOUT_SECONDS: Seconds = Field(
        15,
        description="How long the mail server may take to answer, in seconds; a message takes at most twice"
        " as long in all.",
    )
    NOTIFICATIONS_GMAIL_CREDENTIALS_PATH: Path | None = Field(
        None,
        description="The JSON file of a Google service account with delegation, or of an authorised user;"
        " without it the method gmail is not configured.",
    )
    NOTIFICATIONS_GMAIL_API_URL: str = Field(
        "https://gmail.googleapis.com", description="The address of the Gmail API."
    )
    NOTIFICATIONS_SLACK_BOT_TOKEN: SecretStr | None = Field(
        None,
        description="The bot token of a Slack app with the scope chat:write; without it the method slack is"
        " not configured.",
    )
    NOTIFICATIONS_SLACK_CHANNEL: str | None = Field(
        None, description="The Slack channel of messages that name none."
    )
    NOTIFICATIONS_SLACK_API_URL: str = Field(
        "https://slack.com/api/", description="The address of Slack's API."
    )
    NOTIFICATIONS_RABBITMQ_HOST: str | None = Field(
        None, description="The RabbitMQ server; without it the method rabbitmq is not configured."
    )
    NOTIFICATIONS_RABBITMQ_PORT: Port | None = Field(
        None, description="The port of RabbitMQ; by default 5672, or 5671 with TLS."
    )
    NOTIFICATIONS_RABBITMQ_USERNAME: str = Field("guest", description="The user to log in to RabbitMQ as.")
    NOTIFICATIONS_RABBITMQ_PASSWORD: SecretStr | None = Field(
        None, description="The password of NOTIFICATIONS_RABBITMQ_USERNAME."
    )
    NOTIFICATIONS_RABBITMQ_PATH: str = Field("/", description="The virtual host of RabbitMQ.")
    NOTIFICATIONS_RABBITMQ_TLS: bool = Field(
        False, description="Whether the connection to RabbitMQ uses TLS: true or false."
    )
    NOTIFICATIONS_RABBITMQ_CA_PATH: Path | None = Field(
        None,
        description="The certificate authority of RabbitMQ, if the system does not trust it.",
    )
    NOTIFICATIONS_RABBITMQ_TIMEOUT_SECONDS: Seconds = Field(
        15,
        description="How long RabbitMQ may take to answer, in seconds; a message takes at most twice as long"
        " in all.",
    )
    NOTIFICATIONS_WEBHOOK_RECEIVERS: WebhookReceivers = Field(
        default_factory=dict,
        description="The hosts that the method webhook may call: a JSON object of hosts (host or"
        " host:port), each with the secret that signs its messages, in base64, as openssl rand -base64 32"
        " makes it.",
    )
    NOTIFICATIONS_WEBHOOK_CA_PATH: Path | None = Field(
        None,
        description="A certificate authority of webhook receivers, trusted in addition to those of the"
        " system.",
    )
    NOTIFICATIONS_APPRISE_TARGETS: AppriseTargets = Field(
        default_factory=dict,
        description="The targets of the method apprise: a JSON object of names and Apprise URLs.",
    )

    @model_validator(mode="after")
    def _require_key_for_slurm(self) -> Self:
        has_key = self.SLURM_JWT_HS256_KEY_BASE64 or self.SLURM_JWT_HS256_KEY_PATH
        if self.SLURM_REST_HOST and not has_key:
            raise SettingsError(
                "SLURM_JWT_HS256_KEY_PATH or SLURM_JWT_HS256_KEY_BASE64 must be set beside SLURM_REST_HOST"
            )
        return self

    def min_polling_pause(self) -> float | None:
        """Return MONITOR_POLLING_SECONDS if it is set, and None if the pause follows from the cost alone."""
        is_set = "MONITOR_POLLING_SECONDS" in self.model_fields_set
        return self.MONITOR_POLLING_SECONDS if is_set else None

    def gunicorn_addresses(self) -> list[str]:
        """Return the addresses in GUNICORN_BIND; gunicorn itself does not split a text at commas."""
        return split_addresses(self.GUNICORN_BIND)

    def check_address(self, host: str, name: str) -> None:
        """Check that a server without authentication is not reachable from other machines.

        Args:
            host: The host that the server listens on.
            name: The setting that has this host.

        Raises:
            SettingsError: Others can reach the host, and callers do not authenticate.
        """
        if not (self.ACCESS_METHODS or self.ACCESS_WITHOUT_PROOF or is_loopback(host)):
            raise SettingsError(
                f"{name}: the server would listen on {host}, where others could run anything as any user: set"
                " ACCESS_METHODS=keys and make keys with `flask --app app keys create`, or accept the risk"
                " with ACCESS_WITHOUT_PROOF=true"
            )

    def webhook_secrets(self) -> dict[str, bytes]:
        """Return the key that signs the messages to each receiver of webhooks, by its host in lower case."""
        receivers = self.NOTIFICATIONS_WEBHOOK_RECEIVERS
        return {host.lower(): decode_signing_key(secret) for host, secret in receivers.items()}

    def rabbitmq_port(self) -> int:
        """Return the port of RabbitMQ, whose default depends on TLS."""
        return self.NOTIFICATIONS_RABBITMQ_PORT or (5671 if self.NOTIFICATIONS_RABBITMQ_TLS else 5672)

    def slurm_key(self) -> bytes:
        """Return the raw bytes of the cluster's key.

        Raises:
            SettingsError: There is no key, or its file is empty or cannot be read.
        """
        if self.SLURM_JWT_HS256_KEY_BASE64 is not None:
            return decode_key(self.SLURM_JWT_HS256_KEY_BASE64.get_secret_value())
        if self.SLURM_JWT_HS256_KEY_PATH is None:
            raise SettingsError("SLURM_JWT_HS256_KEY_PATH or SLURM_JWT_HS256_KEY_BASE64 must be set")
        path = self.SLURM_JWT_HS256_KEY_PATH
        remedy = "name a copy of the cluster's jwt_hs256.key that this user can read"
        try:
            key = path.read_bytes()
        except OSError as error:
            raise SettingsError(f"SLURM_JWT_HS256_KEY_PATH: {error.strerror}: {path}; {remedy}") from error
        if not key.strip():
            raise SettingsError(f"SLURM_JWT_HS256_KEY_PATH: {path} is empty; {remedy}")
        return key
