// Kotlin's plugin for the JVM brings the compiler; AGP's own Kotlin support uses the same one.
plugins {
    alias(libs.plugins.android.application) apply false
    alias(libs.plugins.android.library) apply false
    alias(libs.plugins.kotlin.jvm) apply false
}
