// ExecuTorch's adapter. Its tests run with Maven, on module host.
plugins {
    alias(libs.plugins.android.library)
}

android {
    namespace = "io.pocketbert.executorch"
    compileSdk = libs.versions.compileSdk.get().toInt()
    defaultConfig.minSdk = libs.versions.minSdk.get().toInt()
}

dependencies {
    api(project(":core"))
    implementation(libs.executorch)
}
