# The running application: opens tenants' keys, reads their rings, reads secrets. It changes nothing.
path "transit/decrypt/tenants"             { capabilities = ["update"] }
path "secret/data/sentra/rings/*"          { capabilities = ["read"] }
path "secret/metadata/sentra/rings/*"      { capabilities = ["read", "list"] }
path "secret/data/platform"                { capabilities = ["read"] }
path "secret/config"                       { capabilities = ["read"] }
path "auth/token/lookup-self"              { capabilities = ["read"] }
path "auth/token/renew-self"               { capabilities = ["update"] }
path "auth/token/revoke-self"              { capabilities = ["update"] }
