# Whoever looks: lists and describes tenants, and runs the doctor. Of a ring it reads wrapped keys, which
# it cannot unwrap.
path "transit/keys/tenants"                { capabilities = ["read"] }
path "secret/data/sentra/rings/*"          { capabilities = ["read"] }
path "secret/metadata/sentra/rings/*"      { capabilities = ["read", "list"] }
path "secret/config"                       { capabilities = ["read"] }
path "auth/token/lookup-self"              { capabilities = ["read"] }
path "auth/token/renew-self"               { capabilities = ["update"] }
path "auth/token/revoke-self"              { capabilities = ["update"] }
