"""The content of a message, before a channel gives it a form."""

from pydantic import BaseModel, ConfigDict

from app.models.job_facts import JobFacts


class Content(BaseModel):
    """The parts of a message, in the order of their importance to a reader."""

    model_config = ConfigDict(frozen=True)

    subject: str
    headline: str = ""  # the first line, such as bad news
    words: str = ""  # the caller's own text
    facts: JobFacts = JobFacts()
    hint: str = ""  # one plain sentence on what to do better
    is_bad_news: bool = False  # the job has ended, and not well
