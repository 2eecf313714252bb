# Whoever makes, rotates, rewraps, shreds and moves tenants. `update` and never `create` on
# transit/encrypt: with `create`, a name that is mistyped would make a key.
path "transit/keys/tenants"                { capabilities = ["read"] }
path "transit/encrypt/tenants"             { capabilities = ["update"] }
path "transit/decrypt/tenants"             { capabilities = ["update"] }
path "secret/data/sentra/rings/*"          { capabilities = ["create", "read", "update"] }
path "secret/metadata/sentra/rings/*"      { capabilities = ["read", "list"] }
path "secret/destroy/sentra/rings/*"       { capabilities = ["update"] }
path "secret/config"                       { capabilities = ["read"] }
path "auth/token/lookup-self"              { capabilities = ["read"] }
path "auth/token/renew-self"               { capabilities = ["update"] }
path "auth/token/revoke-self"              { capabilities = ["update"] }
