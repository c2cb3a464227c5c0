//! What is made of a list of architectures: a config and a model of any of them, chosen by name.

/// From the names of a config, of a model, of the trait that all models have and of the sizes that the data prescribe, and a list of architectures: name, variant, module and type
/// of the model, and the paper's config for the sizes.
macro_rules! architectures {
    (
        $(#[$about_config:meta])* $Config:ident, $(#[$about_model:meta])* $Any:ident: $Trait:ident, $Sizes:ty;
        $($(#[$about:meta])* $name:literal $variant:ident: $module:ident::$model:ident, $paper:expr;)*
    ) => {
        $(#[$about_config])*
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "model_type")]
        #[non_exhaustive]
        pub enum $Config {
            $($(#[$about])* #[serde(rename = $name)] $variant($module::Config),)*
        }

        $(#[$about_model])*
        #[derive(Debug, Clone)]
        #[non_exhaustive]
        pub enum $Any {
            $($(#[$about])* $variant(Box<$module::$model>),)*
        }

        impl $Config {
            /// The names of the architectures.
            pub const ARCHITECTURES: &[&str] = &[$($name),*];

            fn paper(architecture: &str, sizes: $Sizes) -> Option<Self> {
                match architecture {
                    $($name => {
                        let paper: fn($Sizes) -> $module::Config = $paper;
                        Some(Self::$variant(paper(sizes)))
                    })*
                    _ => None,
                }
            }

            /// The paper's config of an architecture for these sizes, with `changes` of single keys.
            fn with_changes(
                architecture: &str,
                sizes: $Sizes,
                changes: Map<String, Value>,
            ) -> Result<Self> {
                let Some(base) = Self::paper(architecture, sizes) else {
                    let reason = format!("expected one of {}", Self::ARCHITECTURES.join(", "));
                    return Err(Error::config(format!("architecture `{architecture}`"), reason));
                };
                let mut keys = base.keys()?;
                keys.extend(changes);
                Self::from_keys(keys)
            }

            fn from_keys(keys: Map<String, Value>) -> Result<Self> {
                let config: Self = serde_json::from_value(Value::Object(keys))
                    .map_err(|e| Error::config("config", e.to_string()))?;
                config.validate()?;
                Ok(config)
            }

            fn keys(&self) -> Result<Map<String, Value>> {
                match serde_json::to_value(self) {
                    Ok(Value::Object(keys)) => Ok(keys),
                    Ok(_) => Err(Error::config(self.architecture(), "the config is not an object")),
                    Err(e) => Err(Error::config(self.architecture(), e.to_string())),
                }
            }

            /// The name of the architecture.
            pub fn architecture(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $name,)*
                }
            }

            fn type_name(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => stringify!($model),)*
                }
            }

            /// Checks the values.
            ///
            /// # Errors
            /// When one makes no sense, naming it.
            pub fn validate(&self) -> Result<()> {
                match self {
                    $(Self::$variant(config) => config.validate()?,)*
                }
                Ok(())
            }

            /// The model with its parameters from `vb`.
            ///
            /// # Errors
            /// When the config is not valid, or a parameter exists with another shape or type.
            pub fn build(&self, vb: VarBuilder<'_>) -> Result<$Any> {
                Ok(match self {
                    $(Self::$variant(config) => {
                        $Any::$variant(Box::new($module::$model::new(config, vb)?))
                    })*
                })
            }
        }

        impl $Any {
            fn inner(&self) -> &dyn $Trait {
                match self {
                    $(Self::$variant(model) => model.as_ref(),)*
                }
            }
        }

        impl PretrainedModel for $Any {
            type Config = $Config;

            fn read_config(mut keys: Map<String, Value>) -> Result<$Config> {
                keys.remove(ARCHITECTURES);
                $Config::from_keys(keys)
            }

            fn config_keys(config: &$Config) -> Result<Map<String, Value>> {
                let mut keys = config.keys()?;
                keys.insert(ARCHITECTURES.into(), vec![config.type_name()].into());
                Ok(keys)
            }

            fn build(config: &$Config, vb: VarBuilder<'_>) -> Result<Self> {
                config.build(vb)
            }
        }
    };
}
