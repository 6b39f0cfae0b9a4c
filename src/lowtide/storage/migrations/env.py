"""How Alembic runs our steps: on the connection that `migrate.upgrade` brings, in its transaction."""

from alembic import context

from lowtide.storage.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
    render_as_batch=True,
)
context.run_migrations()
